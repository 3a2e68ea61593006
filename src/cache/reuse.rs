//! May I serve it? (RFC 9111 §4, §4.2.4, §5.2.1; RFC 5861; RFC 8246)

use std::time::SystemTime;

use crate::cache::directives::RequestDirectives;
use crate::cache::freshness::Change;
use crate::cache::freshness::Life;
use crate::cache::freshness::Staleness;
use crate::cache::freshness::Validation;

/// Whether the origin can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// As far as is known.
    Reachable,
    /// It answered with an error, in no time, or not at all; or its breaker is open.
    Failing,
}

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Serve it: it is fresh.
    Fresh,
    /// Serve it although it is stale.
    Stale(Window),
    /// Ask the origin first.
    Revalidate(Why),
    /// It may not be served, and the origin is no help: 504 (RFC 9111 §5.2.1.7, §5.2.2.2).
    MustNot(Why),
}

/// What lets a stale response be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// `stale-while-revalidate`: the caller starts one refresh in the background.
    WhileRevalidate,
    /// `stale-if-error`.
    IfError,
    /// The client's `max-stale`.
    MaxStale,
}

impl Window {
    /// The name in logs, metrics and Cache-Status.
    pub fn label(self) -> &'static str {
        match self {
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::MaxStale => "max-stale",
        }
    }
}

/// What forbids serving without validation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is stale and no window is open.
    Stale,
    /// It is stale, and the origin forbids stale use whatever happens.
    MustRevalidate,
    /// The response's `no-cache`.
    NoCache,
    /// The client's `no-cache`, or `Pragma: no-cache`.
    RequestNoCache,
    /// It is older than the client's `max-age`, or stale for a client that named one.
    RequestMaxAge,
    /// It will not be fresh for as long as the client's `min-fresh`.
    RequestMinFresh,
    /// It needs the origin, and the client's `only-if-cached` forbids asking.
    OnlyIfCached,
}

impl Why {
    /// The name in logs, metrics and Cache-Status.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::MustRevalidate => "must-revalidate",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::OnlyIfCached => "only-if-cached",
        }
    }

    /// Whether it is the client that asked for it, and not the response's state: `fwd=request` in
    /// Cache-Status rather than `fwd=stale` (RFC 9211 §2.2).
    pub fn is_client_wish(self) -> bool {
        match self {
            Self::RequestNoCache | Self::RequestMaxAge | Self::RequestMinFresh => true,
            Self::Stale | Self::MustRevalidate | Self::NoCache | Self::OnlyIfCached => false,
        }
    }
}

/// May this stored response answer the request? `asked` is what the route lets the client ask for,
/// see [`RequestDirectives::of`]. That variant and method match is settled before.
pub fn may_serve(life: &Life, asked: &RequestDirectives, now: SystemTime, origin: Origin) -> Reuse {
    match judge(life, asked, now, origin) {
        Ok(reuse) => reuse,
        Err(_) if asked.only_if_cached => Reuse::MustNot(Why::OnlyIfCached),
        Err(why) => match origin {
            Origin::Reachable => Reuse::Revalidate(why),
            Origin::Failing => Reuse::MustNot(why),
        },
    }
}

fn judge(
    life: &Life,
    asked: &RequestDirectives,
    now: SystemTime,
    origin: Origin,
) -> Result<Reuse, Why> {
    if life.validation == Validation::Always {
        return Err(Why::NoCache);
    }
    if asked.no_cache {
        return Err(Why::RequestNoCache);
    }
    let age = life.age(now);
    let too_old = asked.max_age.is_some_and(|limit| age > limit);
    let Some(overdue) = life.overdue(now) else {
        // What cannot have changed needs no younger copy (RFC 8246 §2); `no-cache` above is the
        // signal that asks for one all the same.
        if too_old && life.change == Change::Possible {
            return Err(Why::RequestMaxAge);
        }
        let left = life.lifetime.saturating_sub(age);
        if asked.min_fresh.is_some_and(|needed| left < needed) {
            return Err(Why::RequestMinFresh);
        }
        return Ok(Reuse::Fresh);
    };
    if life.staleness == Staleness::Closed {
        return Err(Why::MustRevalidate);
    }
    if asked.min_fresh.is_some() {
        return Err(Why::RequestMinFresh);
    }
    // A client that bounds the age wants nothing stale, unless it says so (RFC 9111 §5.2.1.1).
    if too_old || (asked.max_age.is_some() && asked.max_stale.is_none()) {
        return Err(Why::RequestMaxAge);
    }
    let wish = |wished: Option<_>| wished.filter(|_| life.staleness == Staleness::Open);
    if wish(asked.max_stale).is_some_and(|limit| overdue <= limit) {
        return Ok(Reuse::Stale(Window::MaxStale));
    }
    // Less than, not at most: a window of no seconds is closed.
    if overdue < life.stale_while_revalidate {
        return Ok(Reuse::Stale(Window::WhileRevalidate));
    }
    let if_error = wish(asked.stale_if_error).unwrap_or_default().max(life.stale_if_error);
    if origin == Origin::Failing && overdue < if_error {
        return Ok(Reuse::Stale(Window::IfError));
    }
    Err(match life.staleness {
        Staleness::Open => Why::Stale,
        Staleness::WindowsOnly | Staleness::Closed => Why::MustRevalidate,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use std::time::UNIX_EPOCH;

    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Origin; 2] = [Origin::Reachable, Origin::Failing];

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + secs(1_000_000 + seconds)
    }

    /// Fresh for sixty seconds, both windows closed.
    fn minute() -> Life {
        Life {
            arrived: at(0),
            age_at_arrival: Duration::ZERO,
            lifetime: secs(60),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            staleness: Staleness::Open,
            validation: Validation::WhenStale,
            change: Change::Possible,
        }
    }

    fn windows() -> Life {
        Life { stale_while_revalidate: secs(30), stale_if_error: secs(300), ..minute() }
    }

    fn nothing() -> RequestDirectives {
        RequestDirectives::default()
    }

    fn reachable(life: &Life, asked: &RequestDirectives, after: u64) -> Reuse {
        may_serve(life, asked, at(after), Origin::Reachable)
    }

    fn failing(life: &Life, asked: &RequestDirectives, after: u64) -> Reuse {
        may_serve(life, asked, at(after), Origin::Failing)
    }

    #[test]
    fn fresh_until_the_age_equals_the_lifetime() {
        assert_eq!(reachable(&minute(), &nothing(), 59), Reuse::Fresh);
        assert_eq!(reachable(&minute(), &nothing(), 60), Reuse::Revalidate(Why::Stale));
    }

    #[test]
    fn a_fresh_response_does_not_need_the_origin() {
        assert_eq!(failing(&minute(), &nothing(), 59), Reuse::Fresh);
    }

    #[test]
    fn a_window_of_no_seconds_is_closed() {
        assert_eq!(reachable(&minute(), &nothing(), 60), Reuse::Revalidate(Why::Stale));
        assert_eq!(failing(&minute(), &nothing(), 60), Reuse::MustNot(Why::Stale));
    }

    #[test]
    fn stale_while_revalidate_ends_at_its_last_second() {
        assert_eq!(reachable(&windows(), &nothing(), 89), Reuse::Stale(Window::WhileRevalidate));
        assert_eq!(reachable(&windows(), &nothing(), 90), Reuse::Revalidate(Why::Stale));
    }

    #[test]
    fn stale_if_error_opens_only_when_the_origin_fails() {
        assert_eq!(reachable(&windows(), &nothing(), 100), Reuse::Revalidate(Why::Stale));
        assert_eq!(failing(&windows(), &nothing(), 100), Reuse::Stale(Window::IfError));
    }

    #[test]
    fn stale_if_error_ends_at_its_last_second() {
        assert_eq!(failing(&windows(), &nothing(), 359), Reuse::Stale(Window::IfError));
        assert_eq!(failing(&windows(), &nothing(), 360), Reuse::MustNot(Why::Stale));
    }

    #[test]
    fn must_revalidate_closes_both_stale_windows() {
        let life = Life { staleness: Staleness::Closed, ..windows() };
        assert_eq!(reachable(&life, &nothing(), 61), Reuse::Revalidate(Why::MustRevalidate));
        assert_eq!(failing(&life, &nothing(), 61), Reuse::MustNot(Why::MustRevalidate));
    }

    #[test]
    fn must_revalidate_outweighs_max_stale_and_the_clients_stale_if_error() {
        let life = Life { staleness: Staleness::Closed, ..minute() };
        let asked = RequestDirectives {
            max_stale: Some(secs(1000)),
            stale_if_error: Some(secs(1000)),
            ..nothing()
        };
        assert_eq!(failing(&life, &asked, 61), Reuse::MustNot(Why::MustRevalidate));
    }

    #[test]
    fn s_maxage_shuts_out_the_clients_wishes_but_not_the_origins_windows() {
        let life = Life { staleness: Staleness::WindowsOnly, ..windows() };
        let asked = RequestDirectives {
            max_stale: Some(secs(10_000)),
            stale_if_error: Some(secs(10_000)),
            ..nothing()
        };
        assert_eq!(reachable(&life, &asked, 61), Reuse::Stale(Window::WhileRevalidate));
        assert_eq!(failing(&life, &asked, 1000), Reuse::MustNot(Why::MustRevalidate));
    }

    #[test]
    fn no_cache_validates_even_what_is_fresh() {
        let life = Life { validation: Validation::Always, ..windows() };
        assert_eq!(reachable(&life, &nothing(), 1), Reuse::Revalidate(Why::NoCache));
        assert_eq!(failing(&life, &nothing(), 1), Reuse::MustNot(Why::NoCache));
    }

    #[test]
    fn the_clients_no_cache_validates_even_what_is_fresh() {
        let asked = RequestDirectives { no_cache: true, ..nothing() };
        assert_eq!(reachable(&windows(), &asked, 1), Reuse::Revalidate(Why::RequestNoCache));
    }

    #[test]
    fn max_age_bounds_the_age_inclusively() {
        let asked = RequestDirectives { max_age: Some(secs(10)), ..nothing() };
        assert_eq!(reachable(&minute(), &asked, 10), Reuse::Fresh);
        assert_eq!(reachable(&minute(), &asked, 11), Reuse::Revalidate(Why::RequestMaxAge));
    }

    #[test]
    fn max_age_accepts_nothing_stale() {
        let asked = RequestDirectives { max_age: Some(secs(1000)), ..nothing() };
        assert_eq!(reachable(&windows(), &asked, 61), Reuse::Revalidate(Why::RequestMaxAge));
    }

    #[test]
    fn max_stale_beside_max_age_accepts_what_is_young_enough() {
        let asked =
            RequestDirectives { max_age: Some(secs(65)), max_stale: Some(secs(100)), ..nothing() };
        assert_eq!(reachable(&minute(), &asked, 65), Reuse::Stale(Window::MaxStale));
        assert_eq!(reachable(&minute(), &asked, 66), Reuse::Revalidate(Why::RequestMaxAge));
    }

    #[test]
    fn immutable_spares_a_reload_by_max_age_but_not_by_no_cache() {
        let life = Life { change: Change::Never, ..minute() };
        let reload = RequestDirectives { max_age: Some(Duration::ZERO), ..nothing() };
        assert_eq!(reachable(&life, &reload, 10), Reuse::Fresh);
        let forced = RequestDirectives { no_cache: true, ..nothing() };
        assert_eq!(reachable(&life, &forced, 10), Reuse::Revalidate(Why::RequestNoCache));
    }

    #[test]
    fn immutable_means_nothing_once_stale() {
        let life = Life { change: Change::Never, ..minute() };
        assert_eq!(reachable(&life, &nothing(), 60), Reuse::Revalidate(Why::Stale));
    }

    #[test]
    fn min_fresh_needs_that_much_left() {
        let asked = RequestDirectives { min_fresh: Some(secs(20)), ..nothing() };
        assert_eq!(reachable(&minute(), &asked, 40), Reuse::Fresh);
        assert_eq!(reachable(&minute(), &asked, 41), Reuse::Revalidate(Why::RequestMinFresh));
    }

    #[test]
    fn max_stale_accepts_up_to_its_bound() {
        let asked = RequestDirectives { max_stale: Some(secs(20)), ..nothing() };
        assert_eq!(reachable(&minute(), &asked, 80), Reuse::Stale(Window::MaxStale));
        assert_eq!(reachable(&minute(), &asked, 81), Reuse::Revalidate(Why::Stale));
    }

    #[test]
    fn the_clients_stale_if_error_ends_at_its_last_second() {
        let asked = RequestDirectives { stale_if_error: Some(secs(20)), ..nothing() };
        assert_eq!(failing(&minute(), &asked, 79), Reuse::Stale(Window::IfError));
        assert_eq!(failing(&minute(), &asked, 80), Reuse::MustNot(Why::Stale));
    }

    #[test]
    fn only_if_cached_serves_what_may_be_served_and_nothing_else() {
        let asked = RequestDirectives { only_if_cached: true, ..nothing() };
        for origin in BOTH {
            assert_eq!(may_serve(&minute(), &asked, at(59), origin), Reuse::Fresh);
            assert_eq!(
                may_serve(&minute(), &asked, at(60), origin),
                Reuse::MustNot(Why::OnlyIfCached)
            );
        }
    }

    /// How much is let through: fresh, then stale, then nothing.
    fn looseness(reuse: Reuse) -> u8 {
        match reuse {
            Reuse::Fresh => 2,
            Reuse::Stale(_) => 1,
            Reuse::Revalidate(_) | Reuse::MustNot(_) => 0,
        }
    }

    fn some_secs() -> impl Strategy<Value = Duration> {
        (0..40_u64).prop_map(secs)
    }

    prop_compose! {
        fn lives()(
            lifetime in some_secs(),
            age_at_arrival in some_secs(),
            stale_while_revalidate in some_secs(),
            stale_if_error in some_secs(),
            staleness in prop_oneof![
                Just(Staleness::Open), Just(Staleness::WindowsOnly), Just(Staleness::Closed)
            ],
            always in any::<bool>(),
            never_changes in any::<bool>(),
        ) -> Life {
            Life {
                arrived: at(0),
                age_at_arrival,
                lifetime,
                stale_while_revalidate,
                stale_if_error,
                staleness,
                validation: if always { Validation::Always } else { Validation::WhenStale },
                change: if never_changes { Change::Never } else { Change::Possible },
            }
        }
    }

    prop_compose! {
        fn wishes()(
            no_cache in any::<bool>(),
            only_if_cached in any::<bool>(),
            max_age in option::of(some_secs()),
            max_stale in option::of(some_secs()),
            min_fresh in option::of(some_secs()),
            stale_if_error in option::of(some_secs()),
        ) -> RequestDirectives {
            RequestDirectives {
                no_cache,
                no_store: false,
                only_if_cached,
                max_age,
                max_stale,
                min_fresh,
                stale_if_error,
            }
        }
    }

    /// Every way of making a request stricter by `by`.
    fn stricter_wishes(asked: RequestDirectives, by: Duration) -> Vec<RequestDirectives> {
        let less = |time: Option<Duration>| time.map(|time| time.saturating_sub(by));
        vec![
            RequestDirectives { no_cache: true, ..asked },
            RequestDirectives { only_if_cached: true, ..asked },
            RequestDirectives { max_age: Some(less(asked.max_age).unwrap_or(by)), ..asked },
            RequestDirectives { max_stale: None, ..asked },
            RequestDirectives { max_stale: less(asked.max_stale), ..asked },
            RequestDirectives {
                min_fresh: Some(asked.min_fresh.unwrap_or_default() + by),
                ..asked
            },
            RequestDirectives { stale_if_error: None, ..asked },
            RequestDirectives { stale_if_error: less(asked.stale_if_error), ..asked },
        ]
    }

    /// Every way of making a response stricter by `by`.
    fn stricter_lives(life: Life, by: Duration) -> Vec<Life> {
        vec![
            Life { lifetime: life.lifetime.saturating_sub(by), ..life },
            Life { age_at_arrival: life.age_at_arrival + by, ..life },
            Life { stale_while_revalidate: life.stale_while_revalidate.saturating_sub(by), ..life },
            Life { stale_if_error: life.stale_if_error.saturating_sub(by), ..life },
            Life { staleness: Staleness::Closed, ..life },
            Life { validation: Validation::Always, ..life },
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_stricter_directive_never_serves_more(
            life in lives(), asked in wishes(), after in 0..100_u64, by in some_secs(),
        ) {
            for origin in BOTH {
                let verdict = looseness(may_serve(&life, &asked, at(after), origin));
                for strict in stricter_wishes(asked, by) {
                    prop_assert!(looseness(may_serve(&life, &strict, at(after), origin)) <= verdict);
                }
                for strict in stricter_lives(life, by) {
                    prop_assert!(looseness(may_serve(&strict, &asked, at(after), origin)) <= verdict);
                }
            }
        }

        #[test]
        fn time_never_makes_a_response_more_servable(
            life in lives(), asked in wishes(), after in 0..100_u64, later in 0..100_u64,
        ) {
            for origin in BOTH {
                let before = looseness(may_serve(&life, &asked, at(after), origin));
                let behind = looseness(may_serve(&life, &asked, at(after + later), origin));
                prop_assert!(behind <= before);
            }
        }

        #[test]
        fn nothing_past_its_permitted_life_is_served(
            life in lives(), asked in wishes(), after in 0..200_u64,
        ) {
            let longest = [
                life.stale_while_revalidate,
                life.stale_if_error,
                asked.max_stale.unwrap_or_default(),
                asked.stale_if_error.unwrap_or_default(),
            ];
            let longest = longest.into_iter().max().unwrap_or_default();
            if life.overdue(at(after)).is_some_and(|overdue| overdue > longest) {
                for origin in BOTH {
                    prop_assert_eq!(looseness(may_serve(&life, &asked, at(after), origin)), 0);
                }
            }
        }
    }
}
