//! The configuration as it takes effect, as YAML that loads again.

mod moot;
mod yaml;

use crate::config::check::asking;
use crate::config::check::route;
use crate::config::check::unwritten;
use crate::config::check::uses;
use crate::config::mask;
use crate::config::plan::Plan;
use crate::config::schema::Config;
use crate::config::schema::cache::Cache;
use crate::config::schema::route::Condition;
use crate::config::schema::route::HeaderChanges;
use crate::config::schema::route::Headers;
use crate::config::schema::route::Match;
use crate::config::schema::route::Respond;
use crate::config::schema::secret::FieldText;
use crate::config::schema::secret::Secret;
use crate::config::schema::value::OrAuto;
use crate::config::schema::value::Switch;
use crate::message::secret;
use crate::message::secret::MASK;
use crate::units::ByteSize;

/// The effective configuration as YAML: every default and everything inherited filled in.
///
/// What is a secret, by its type or by the name of its field, parameter or cookie, is masked, and
/// everything else loads again as it is. (The mask does not load: it would be a secret that everybody
/// knows.)
#[must_use]
pub fn show(config: &Config) -> String {
    written(config, &[])
}

/// The same. Redirects to which text from variables belongs, by their routes, stay as they are written.
pub(super) fn written(config: &Config, from_variables: &[(usize, String)]) -> String {
    let value = serde_yaml::to_value(masked(effective(config)));
    let mut value = value.expect("text, numbers, lists and sections can always be a YAML value");
    moot::leave_out(config, &mut value);
    for (route, to) in from_variables {
        let redirect = value.get_mut("routes").and_then(|routes| routes.get_mut(*route));
        if let Some(to_be) = redirect.and_then(|route| route.get_mut("redirect")?.get_mut("to")) {
            *to_be = yaml::as_written(mask::url(to));
        }
    }
    yaml::write(&value)
}

/// The same configuration with everything written out that a route inherits.
#[must_use]
pub fn effective(config: &Config) -> Config {
    let mut whole = config.clone();
    if let Switch::On(cache) = &mut whole.defaults.cache {
        *cache = cache.or(&Cache::built_in());
    }
    for listener in &mut whole.listeners {
        listener.name.get_or_insert_with(|| listener.address.clone());
    }
    for (name, upstream) in &mut whole.upstreams {
        unwritten::fill(upstream, uses::of(name, config));
    }
    let defaults = whole.defaults.clone();
    for (position, route) in whole.routes.iter_mut().enumerate() {
        route.name = Some(route::name(route, position));
        route.max_body.get_or_insert(defaults.max_body);
        route.max_header.get_or_insert(defaults.max_header);
        if let Some(mirror) = &mut route.mirror {
            mirror.max_body = asking::copied(mirror, route.max_body.unwrap_or(defaults.max_body));
        }
        // To a route that answers by itself the others mean nothing: written out, they would be warned of.
        if route::answers_itself(route) {
            continue;
        }
        route.timeout.get_or_insert(defaults.timeout);
        route.spool.get_or_insert(defaults.spool);
        let outer = defaults.cache.as_ref().map_or_else(Cache::built_in, Cache::clone);
        route.cache = Some(match &route.cache {
            None => defaults.cache.clone(),
            Some(Switch::Off) => Switch::Off,
            Some(Switch::On(own)) => Switch::On(own.or(&outer)),
        });
        route.purge.get_or_insert_with(|| defaults.purge.clone());
    }
    whole
}

/// The same configuration with what `auto` stands for in the plan that was made of it.
#[must_use]
pub(super) fn settled(config: &Config, plan: &Plan) -> Config {
    let mut whole = config.clone();
    let (written, meant) = (&mut whole.process, &plan.process);
    fill(&mut written.threads, || u32::try_from(meant.threads).unwrap_or(u32::MAX));
    for (path, is) in [
        (&mut written.state_dir, &meant.state_dir),
        (&mut written.pid_file, &meant.pid_file),
        (&mut written.log_file, &meant.log_file),
        (&mut written.upgrade_socket, &meant.upgrade_socket),
    ] {
        fill(path, || is.clone());
    }
    fill(&mut whole.cache.handover_memory, || ByteSize(plan.storage.handover.most));
    // Where nothing is ordered, the section would only be in the way.
    if let Some(acme) = &plan.acme {
        let storage = acme.folder.parent().unwrap_or(&acme.folder);
        fill(&mut whole.acme.storage, || storage.to_path_buf());
        // It names the server by itself then.
        whole.acme.staging = false;
        fill(&mut whole.acme.directory, || acme.directory.clone());
    }
    whole
}

fn fill<T>(written: &mut OrAuto<T>, is: impl FnOnce() -> T) {
    if matches!(written, OrAuto::Auto) {
        *written = OrAuto::Is(is());
    }
}

/// The same configuration without the secrets that are written in it.
fn masked(mut config: Config) -> Config {
    if let OrAuto::Is(directory) = &mut config.acme.directory {
        *directory = mask::url(directory);
    }
    if let Some(dns) = &mut config.acme.dns {
        dns.command = mask::command(&dns.command);
    }
    for upstream in config.upstreams.values_mut() {
        if let Switch::On(health) = &mut upstream.health {
            health.path = health.path.as_deref().map(mask::url);
            mask_texts(health.headers.iter_mut());
        }
    }
    for route in &mut config.routes {
        mask_conditions(&mut route.matches);
        if let Some(Headers { request, response, underscores: _, client_cert: _ }) =
            &mut route.headers
        {
            mask_changes(request);
            mask_changes(response);
        }
        if let Some(redirect) = &mut route.redirect {
            redirect.to = mask::url(&redirect.to);
        }
        if let Some(Respond { headers, .. }) = &mut route.respond {
            for (name, value) in headers.iter_mut() {
                if secret::is_field(name) {
                    *value = MASK.to_owned();
                } else if is_link(name) {
                    *value = mask::url(value);
                }
            }
        }
    }
    config
}

fn mask_changes(HeaderChanges { set, add, remove: _ }: &mut HeaderChanges) {
    mask_texts(set.iter_mut().chain(add));
}

fn mask_texts<'a>(texts: impl Iterator<Item = (&'a String, &'a mut FieldText)>) {
    for (name, text) in texts {
        let Some(value) = &mut text.value else { continue };
        if secret::is_field(name) {
            *value = Secret::new(MASK);
        } else if is_link(name) {
            *value = Secret::new(mask::url(value.reveal()));
        }
    }
}

/// Whether the value of a field is a URL.
fn is_link(name: &str) -> bool {
    ["location", "content-location", "referer"].iter().any(|link| name.eq_ignore_ascii_case(link))
}

fn mask_conditions(Match { headers, query, cookies, .. }: &mut Match) {
    let fields = headers.iter_mut().filter(|(name, _)| secret::is_field(name));
    let others = query.iter_mut().chain(cookies);
    let others = others.filter(|(name, _)| secret::is_named_so(name.as_bytes()));
    for (_, condition) in fields.chain(others) {
        match condition {
            Condition::Present | Condition::Absent => {}
            Condition::Exact(text) | Condition::Prefix(text) | Condition::Regex(text) => {
                *text = MASK.to_owned();
            }
        }
    }
}
