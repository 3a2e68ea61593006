//! One order: from "these hosts" to a certificate and its key.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use instant_acme::Account;
use instant_acme::AuthorizationStatus;
use instant_acme::CertificateIdentifier;
use instant_acme::ChallengeHandle;
use instant_acme::ChallengeType;
use instant_acme::Error;
use instant_acme::ExternalAccountKey;
use instant_acme::Identifier;
use instant_acme::NewAccount;
use instant_acme::NewOrder;
use instant_acme::Order;
use instant_acme::OrderStatus;
use instant_acme::Problem;
use instant_acme::RetryPolicy;

use crate::acme::Settings;
use crate::acme::client::Client;
use crate::acme::decide::Failure;
use crate::acme::folder::Folder;
use crate::acme::hook::Deed;
use crate::acme::hook::Record;
use crate::tls::Proof;
use crate::tls::answers::Answers;
use crate::tls::answers::Shown;
use crate::tls::leaf::Identity;
use crate::upstream::OriginTls;
use crate::upstream::Protocol;
use crate::upstream::tls::client_config;

/// How often the server is asked how an order stands, and for how long.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(300));

/// A certificate that was issued, as PEM.
pub(super) struct Bought {
    pub(super) chain: String,
    pub(super) key: String,
}

/// Why there is none.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: String,
    pub(super) failure: Failure,
    /// Whether the server does not know our account.
    account_unknown: bool,
}

/// What orders need.
pub(super) struct Counter<'a> {
    pub(super) settings: &'a Settings,
    pub(super) folder: &'a Folder,
    pub(super) answers: &'a Arc<Answers>,
}

/// What is shown to the server for one host.
enum Exhibit {
    /// By ourselves, until this is dropped.
    Here(#[expect(dead_code, reason = "it is shown as long as this lives")] Shown),
    /// By the DNS.
    Record(Record),
}

impl Refused {
    pub(super) fn plain(why: impl Into<String>) -> Self {
        Self { why: why.into(), failure: Failure::Plain, account_unknown: false }
    }

    fn of(error: &Error, client: &Client) -> Self {
        let kind = match error {
            Error::Api(problem) => problem.r#type.as_deref().unwrap_or_default(),
            _ => "",
        };
        let failure = match client.rest() {
            Some(moment) => Failure::Until(moment),
            None if kind.ends_with(":rateLimited") => Failure::Limited,
            None => Failure::Plain,
        };
        let why = match error {
            Error::Api(problem) => told(problem),
            other => other.to_string(),
        };
        Self { why, failure, account_unknown: kind.ends_with(":accountDoesNotExist") }
    }
}

/// What the server says is wrong, in one line.
fn told(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a name");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => format!("{detail} ({kind})"),
        None => kind.to_owned(),
    };
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    text.chars().filter(|c| !c.is_control()).take(1000).collect()
}

impl Counter<'_> {
    /// Orders a certificate for `hosts` in the place of `before`.
    pub(super) async fn order(
        &self,
        hosts: &[String],
        before: Option<&Identity>,
    ) -> Result<Bought, Refused> {
        let client = self.client()?;
        match self.order_as(&self.account(&client).await?, &client, hosts, before).await {
            // A server that lost its accounts, as those for tests do.
            Err(refused) if refused.account_unknown => {
                self.folder.forget_account().await.map_err(Refused::plain)?;
                let account = self.account(&client).await?;
                self.order_as(&account, &client, hosts, before).await
            }
            done => done,
        }
    }

    /// When the server asks for a renewal, and when to ask it again; `None`: it has nothing to say.
    pub(super) async fn suggestion(
        &self,
        identity: &Identity,
        chance: f64,
    ) -> Result<Option<(SystemTime, Duration)>, Refused> {
        let client = self.client()?;
        let account = self.account(&client).await?;
        match account.renewal_info(&name_of(identity)).await {
            Ok((info, again)) => {
                let start = SystemTime::from(info.suggested_window.start);
                let end = SystemTime::from(info.suggested_window.end);
                let width = end.duration_since(start).unwrap_or_default();
                Ok(Some((start + width.mul_f64(chance.clamp(0.0, 1.0)), again)))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(Refused::of(&error, &client)),
        }
    }

    fn client(&self) -> Result<Client, Refused> {
        let tls = OriginTls { ca: self.settings.root.clone(), ..OriginTls::default() };
        let trust =
            client_config(&tls, Protocol::Http1).map_err(|e| Refused::plain(e.to_string()))?;
        Ok(Client::new(trust))
    }

    /// The account that is kept, or a new one.
    async fn account(&self, client: &Client) -> Result<Account, Refused> {
        let _lock = self.folder.lock("account").await.map_err(Refused::plain)?;
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let refused = |error| Refused::of(&error, client);
        if let Some(kept) = self.folder.account().await.map_err(Refused::plain)? {
            return builder.from_credentials(kept).await.map_err(refused);
        }
        let settings = self.settings;
        let contact = settings.contact.as_ref().map(|address| format!("mailto:{address}"));
        let contact: Vec<&str> = contact.as_deref().into_iter().collect();
        let account = NewAccount {
            contact: &contact,
            terms_of_service_agreed: settings.terms_agreed,
            only_return_existing: false,
        };
        let external = settings.external_account.as_ref();
        let external = external.map(|own| ExternalAccountKey::new(own.key_id.clone(), &own.key));
        let made = builder.create(&account, settings.directory.clone(), external.as_ref()).await;
        let (account, credentials) = made.map_err(refused)?;
        self.folder.keep_account(&credentials).await.map_err(Refused::plain)?;
        log::info!(target: "edgeproxy::acme", "there is a new account at {}", settings.directory);
        Ok(account)
    }

    async fn order_as(
        &self,
        account: &Account,
        client: &Client,
        hosts: &[String],
        before: Option<&Identity>,
    ) -> Result<Bought, Refused> {
        let names: Vec<Identifier> = hosts.iter().cloned().map(Identifier::Dns).collect();
        let wish = NewOrder::new(&names);
        let wish = match before {
            Some(before) => wish.replaces(name_of(before)),
            None => wish,
        };
        let placed = match account.new_order(&wish).await {
            // A server that knows nothing of renewals, or has forgotten that one.
            Err(error) if before.is_some() && is_about_the_one_before(&error) => {
                account.new_order(&NewOrder::new(&names)).await
            }
            placed => placed,
        };
        let mut order = placed.map_err(|error| Refused::of(&error, client))?;
        let mut exhibits = Vec::new();
        let bought = self.carry_out(&mut order, client, &mut exhibits).await;
        for exhibit in exhibits {
            if let (Exhibit::Record(record), Some(hook)) = (exhibit, &self.settings.hook) {
                hook.remove(&record).await;
            }
        }
        bought
    }

    async fn carry_out(
        &self,
        order: &mut Order,
        client: &Client,
        exhibits: &mut Vec<Exhibit>,
    ) -> Result<Bought, Refused> {
        let refused = |error| Refused::of(&error, client);
        self.show(order, client, exhibits).await?;
        let status = order.poll_ready(&POLLING).await;
        match status {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
            Ok(OrderStatus::Invalid | OrderStatus::Pending | OrderStatus::Processing) => {
                return Err(blame(order).await.map_or_else(
                    || Refused::plain("the server found the order invalid"),
                    Refused::plain,
                ));
            }
            Err(error) => {
                let mut refused = Refused::of(&error, client);
                if let Some(why) = blame(order).await {
                    refused.why = why;
                }
                return Err(refused);
            }
        }
        let key = order.finalize().await.map_err(refused)?;
        let chain = order.poll_certificate(&POLLING).await.map_err(refused)?;
        Ok(Bought { chain, key })
    }

    /// Shows the server that the hosts are ours, and has it look.
    async fn show(
        &self,
        order: &mut Order,
        client: &Client,
        exhibits: &mut Vec<Exhibit>,
    ) -> Result<(), Refused> {
        let refused = |error| Refused::of(&error, client);
        let kind = match self.settings.proof {
            Proof::Http01 => ChallengeType::Http01,
            Proof::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Proof::Dns01 => ChallengeType::Dns01,
        };
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(refused)?;
            let host = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Invalid
                | AuthorizationStatus::Revoked
                | AuthorizationStatus::Expired
                | AuthorizationStatus::Deactivated => {
                    let status = authorization.status;
                    return Err(Refused::plain(format!(
                        "the authorization for {host} is {status:?}"
                    )));
                }
            }
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                let name = self.settings.proof.name();
                let why = format!("the server does not offer {name} for {host}");
                return Err(Refused::plain(why));
            };
            exhibits.push(self.exhibit(&challenge).await.map_err(Refused::plain)?);
            challenge.set_ready().await.map_err(refused)?;
        }
        Ok(())
    }

    async fn exhibit(&self, challenge: &ChallengeHandle<'_>) -> Result<Exhibit, String> {
        let text = challenge.key_authorization();
        let host = match challenge.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => return Err(format!("{other:?} was never ordered")),
        };
        match self.settings.proof {
            Proof::Http01 => {
                let shown = self.answers.show_text(&challenge.token, text.as_str());
                shown.map(Exhibit::Here)
            }
            Proof::TlsAlpn01 => {
                let shown = self.answers.show_certificate(&host, text.digest().as_ref());
                shown.map(Exhibit::Here).map_err(|e| e.to_string())
            }
            Proof::Dns01 => {
                let Some(hook) = &self.settings.hook else {
                    return Err("there is no command for DNS records".to_owned());
                };
                let record = Record { host, value: text.dns_value() };
                hook.run(Deed::Set, &record).await?;
                Ok(Exhibit::Record(record))
            }
        }
    }
}

/// Whether an order may have been refused for the certificate that it names as the one before.
fn is_about_the_one_before(error: &Error) -> bool {
    match error {
        Error::Unsupported(_) => true,
        // A server that knows of renewals, and does not say back which certificate the order replaces as it must
        // (RFC 9773 §5), would never have one renewed.
        Error::Other(why) => why.to_string().starts_with("replaces"),
        Error::Api(problem) => problem.r#type.as_deref().is_some_and(|kind| {
            [":alreadyReplaced", ":malformed", ":conflict"].iter().any(|end| kind.ends_with(end))
        }),
        _ => false,
    }
}

/// What the server says about the hosts of an order that failed.
async fn blame(order: &mut Order) -> Option<String> {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let host = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|one| one.error.as_ref());
        reasons.extend(errors.map(|problem| format!("{host}: {}", told(problem))));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn name_of(identity: &Identity) -> CertificateIdentifier<'static> {
    let (authority, serial) = (identity.authority.as_slice(), identity.serial.as_slice());
    CertificateIdentifier::new(authority.into(), serial.into()).into_owned()
}
