//! One task for each certificate, which sees to it that there is one.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use log::error;
use log::info;
use log::warn;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::acme::Settings;
use crate::acme::decide;
use crate::acme::decide::Facts;
use crate::acme::decide::Failure;
use crate::acme::decide::Step;
use crate::acme::decide::Why;
use crate::acme::folder::Folder;
use crate::acme::folder::Kept;
use crate::acme::folder::POLL;
use crate::acme::folder::Record;
use crate::acme::order::Bought;
use crate::acme::order::Counter;
use crate::acme::order::Refused;
use crate::tls::Proof;
use crate::tls::answers::Answers;
use crate::tls::issued;

/// Orders at a time.
const AT_ONCE: usize = 4;

/// How long one order may take, whatever waits in it.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The longest sleep: clocks are set, and other nodes do things.
const LOOK: Duration = Duration::from_secs(6 * 3600);

/// The shortest time between two questions when to renew.
const ASK: Duration = Duration::from_secs(3600);

/// How often certificates are looked at that were just put there: by whom, only the file says.
const FRESH: Duration = Duration::from_secs(60);

/// Told that a certificate was replaced.
pub type OnNew = Arc<dyn Fn() + Send + Sync>;

/// Sees to it that there are certificates, for as long as it lives.
pub struct Keeper {
    board: Arc<Board>,
    tasks: Vec<JoinHandle<()>>,
}

/// How one certificate stands, for operators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Whom it is for.
    pub hosts: Vec<String>,
    /// What is being done.
    pub state: State,
    /// The end of the certificate that is kept, in seconds since the epoch.
    pub expires: Option<u64>,
    /// When something is done next, in seconds since the epoch.
    pub next: Option<u64>,
    /// Orders that this process tried and that succeeded.
    pub issued: u64,
    /// Orders that this process tried and that failed.
    pub failed: u64,
    /// How many failed in a row, whoever tried.
    pub failures: u32,
    /// Why the last one failed.
    pub error: Option<String>,
    /// When one last succeeded, whoever tried, in seconds since the epoch.
    pub succeeded: Option<u64>,
}

/// What is being done about a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing: it is valid.
    Valid,
    /// It is ordered.
    Ordering,
    /// Another node orders it.
    Elsewhere,
    /// The last order failed; there will be another.
    Waiting,
}

#[derive(Default)]
struct Board(Mutex<BTreeMap<String, Standing>>);

/// What all tasks share.
struct Shop {
    settings: Settings,
    folder: Folder,
    answers: Arc<Answers>,
    turns: Arc<Semaphore>,
    board: Arc<Board>,
    on_new: OnNew,
}

impl Keeper {
    /// Begins to keep a certificate for each group of hosts. `on_new` is called when one was replaced, by
    /// this process or by another that shares the folder.
    #[must_use]
    pub fn start(
        settings: Settings,
        groups: Vec<Vec<String>>,
        answers: Arc<Answers>,
        on_new: OnNew,
    ) -> Self {
        let folder = Folder::new(&settings.folder);
        answers.share((settings.proof == Proof::Http01).then(|| folder.challenges()));
        let board = Arc::new(Board::default());
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let shared = Arc::clone(&board);
        let shop = Arc::new(Shop { settings, folder, answers, turns, board: shared, on_new });
        let task = |hosts| tokio::spawn(keep(Arc::clone(&shop), hosts));
        let tasks = groups.into_iter().map(task).collect();
        Self { board, tasks }
    }

    /// How every certificate stands.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.board.0.lock().values().cloned().collect()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Keeps one certificate.
async fn keep(shop: Arc<Shop>, hosts: Vec<String>) {
    let name = issued::name(&hosts);
    let mut known: Option<Vec<u8>> = None;
    let mut first = true;
    loop {
        let (kept, record) = shop.look(&name, &hosts).await;
        let is_new = kept.as_ref().is_some_and(|kept| match first {
            // What listeners read at the start may be older by a moment.
            true => kept.written.elapsed().is_ok_and(|age| age < FRESH),
            false => known.as_ref() != Some(&kept.der),
        });
        first = false;
        if is_new {
            (shop.on_new)();
        }
        let now = SystemTime::now();
        let step = decide::next(&facts(kept.as_ref(), &record), now);
        shop.note(&name, &hosts, kept.as_ref(), &record, step);
        let record = match (&kept, step) {
            (Some(kept), Step::Wait(_)) if wants_to_be_asked(&record, now) => {
                shop.ask(&name, kept, record).await
            }
            (_, _) => record,
        };
        known = kept.as_ref().map(|kept| kept.der.clone());
        match decide::next(&facts(kept.as_ref(), &record), now) {
            Step::Order(_) => shop.attempt(&name, &hosts).await,
            Step::Wait(until) => {
                let wait = until.duration_since(SystemTime::now()).unwrap_or_default();
                sleep(wait.min(LOOK)).await;
            }
        }
    }
}

fn facts(kept: Option<&Kept>, record: &Record) -> Facts {
    Facts {
        kept: kept.map(|kept| kept.validity),
        suggested: record.suggested.map(moment),
        again: record.again.map(moment),
    }
}

fn wants_to_be_asked(record: &Record, now: SystemTime) -> bool {
    record.ask_again.is_none_or(|again| moment(again) <= now)
}

impl Shop {
    async fn look(&self, name: &str, hosts: &[String]) -> (Option<Kept>, Record) {
        (self.folder.kept(hosts).await, self.folder.record(name).await)
    }

    /// Asks the server when it wants the certificate renewed.
    async fn ask(&self, name: &str, kept: &Kept, mut record: Record) -> Record {
        let Some(identity) = &kept.identity else { return record };
        // Who asks writes it down for all.
        let Ok(Some(_lock)) = self.folder.try_lock(name).await else { return record };
        let now = SystemTime::now();
        let answer = timeout(PATIENCE, self.counter().suggestion(identity, chance())).await;
        let again = match answer {
            Ok(Ok(Some((moment, again)))) => {
                record.suggested = Some(seconds(moment));
                again.clamp(ASK, LOOK * 4)
            }
            Ok(Ok(None)) => {
                record.suggested = None;
                LOOK * 4
            }
            Ok(Err(Refused { why, .. })) => {
                info!(target: "edgeproxy::acme", "{name}: when to renew is not known: {why}");
                LOOK
            }
            Err(_) => LOOK,
        };
        record.ask_again = Some(seconds(now + again));
        self.remember(name, &record).await;
        record
    }

    /// Orders, unless another node does.
    async fn attempt(&self, name: &str, hosts: &[String]) {
        let Ok(_turn) = self.turns.acquire().await else { return };
        let lock = match self.folder.try_lock(name).await {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                self.say(name, State::Elsewhere);
                return sleep(POLL).await;
            }
            Err(why) => {
                error!(target: "edgeproxy::acme", "no certificate can be kept: {why}");
                self.fail(name, &why);
                return sleep(self.settings.retry).await;
            }
        };
        // Another node may have been faster.
        let (kept, record) = self.look(name, hosts).await;
        let Step::Order(why) = decide::next(&facts(kept.as_ref(), &record), SystemTime::now())
        else {
            return;
        };
        self.say(name, State::Ordering);
        self.folder.tidy().await;
        let result = self.order(hosts, kept.as_ref(), why).await;
        self.settle(name, hosts, kept.as_ref(), record, result).await;
        drop(lock);
    }

    async fn order(
        &self,
        hosts: &[String],
        before: Option<&Kept>,
        why: Why,
    ) -> Result<(), Refused> {
        let named = hosts.join(", ");
        let directory = &self.settings.directory;
        info!(target: "edgeproxy::acme", "ordering a certificate for {named} from {directory}: {why}");
        let before = before.and_then(|kept| kept.identity.as_ref());
        let Ok(bought) = timeout(PATIENCE, self.counter().order(hosts, before)).await else {
            return Err(Refused::plain(format!("the order took longer than {PATIENCE:?}")));
        };
        let Bought { chain, key } = bought?;
        self.folder.keep(hosts, chain, key).await.map_err(Refused::plain)
    }

    async fn settle(
        &self,
        name: &str,
        hosts: &[String],
        before: Option<&Kept>,
        record: Record,
        result: Result<(), Refused>,
    ) {
        let (named, now) = (hosts.join(", "), SystemTime::now());
        let record = match result {
            Ok(()) => {
                info!(target: "edgeproxy::acme", "there is a new certificate for {named}");
                self.count(name, |one| one.issued += 1);
                let done = Record { succeeded: Some(seconds(now)), ..Record::default() };
                let kept = self.folder.kept(hosts).await;
                match decide::next(&facts(kept.as_ref(), &done), now) {
                    Step::Wait(_) => done,
                    // Ordering what is due at once would have no end.
                    Step::Order(_) => {
                        let why =
                            "the certificate that was issued is due already; is the clock right?";
                        let failures = record.failures.saturating_add(1);
                        let first = self.settings.retry;
                        let at = decide::again(failures, first, Failure::Plain, chance(), now);
                        error!(target: "edgeproxy::acme", "{named}: {why}");
                        Record {
                            failures,
                            again: Some(seconds(at)),
                            error: Some(why.to_owned()),
                            ..done
                        }
                    }
                }
            }
            Err(Refused { why, failure, .. }) => {
                let failures = record.failures.saturating_add(1);
                let at = decide::again(failures, self.settings.retry, failure, chance(), now);
                tell(&named, before, &why, failure, at, now);
                self.fail(name, &why);
                Record { failures, again: Some(seconds(at)), error: Some(why), ..record }
            }
        };
        self.remember(name, &record).await;
        if let Some(again) = record.again {
            // Where nothing can be written down, the wait is kept all the same.
            let wait = moment(again).duration_since(now).unwrap_or_default();
            if self.folder.record(name).await != record {
                sleep(wait).await;
            }
        }
    }

    fn counter(&self) -> Counter<'_> {
        let Self { settings, folder, answers, .. } = self;
        Counter { settings, folder, answers }
    }

    async fn remember(&self, name: &str, record: &Record) {
        if let Err(why) = self.folder.keep_record(name, record).await {
            error!(target: "edgeproxy::acme", "what became of an order cannot be kept: {why}");
        }
    }

    fn note(&self, name: &str, hosts: &[String], kept: Option<&Kept>, record: &Record, step: Step) {
        let mut board = self.board.0.lock();
        let one = board.entry(name.to_owned()).or_insert_with(|| Standing {
            hosts: hosts.to_vec(),
            state: State::Waiting,
            expires: None,
            next: None,
            issued: 0,
            failed: 0,
            failures: 0,
            error: None,
            succeeded: None,
        });
        one.expires = kept.map(|kept| seconds(kept.validity.until));
        one.failures = record.failures;
        one.error.clone_from(&record.error);
        one.succeeded = record.succeeded;
        let is_fine = kept.is_some() && record.failures == 0;
        (one.state, one.next) = match step {
            Step::Order(_) => (one.state, Some(seconds(SystemTime::now()))),
            Step::Wait(until) if is_fine => (State::Valid, Some(seconds(until))),
            Step::Wait(until) => (State::Waiting, Some(seconds(until))),
        };
    }

    fn say(&self, name: &str, state: State) {
        self.count(name, |one| one.state = state);
    }

    fn fail(&self, name: &str, why: &str) {
        self.count(name, |one| {
            one.failed += 1;
            one.state = State::Waiting;
            one.error = Some(why.to_owned());
        });
    }

    fn count(&self, name: &str, change: impl FnOnce(&mut Standing)) {
        self.board.0.lock().get_mut(name).map(change);
    }
}

/// Says that an order failed: the louder, the less time is left.
fn tell(
    named: &str,
    before: Option<&Kept>,
    why: &str,
    failure: Failure,
    again: SystemTime,
    now: SystemTime,
) {
    let wait = again.duration_since(now).unwrap_or_default().as_secs();
    let limit = match failure {
        Failure::Plain => "",
        Failure::Limited | Failure::Until(_) => "; the server limits how often it is asked",
    };
    match before {
        None => warn!(
            target: "edgeproxy::acme",
            "no certificate for {named}: {why}; the internal CA stands in, next attempt in {wait} s{limit}"
        ),
        Some(kept) => match kept.validity.until.duration_since(now) {
            Ok(left) => warn!(
                target: "edgeproxy::acme",
                "the certificate for {named} is not renewed: {why}; the old one is valid for {} more \
                 hours, next attempt in {wait} s{limit}",
                left.as_secs() / 3600
            ),
            Err(_) => error!(
                target: "edgeproxy::acme",
                "the certificate for {named} has expired and is not renewed: {why}; next attempt in \
                 {wait} s{limit}"
            ),
        },
    }
}

fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn moment(seconds: u64) -> SystemTime {
    // A record that was tampered with must not overflow the clock.
    UNIX_EPOCH + Duration::from_secs(seconds.min(1 << 40))
}

/// From 0 to 1.
fn chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}
