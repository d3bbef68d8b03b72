//! `ottla token create|list|renew|expire`: delegation tokens, for callers who show a certificate.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use ottla_proto::admin::{ChangeTokenRequest, CreateTokenRequest, Token as Given};
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::Failure;
use crate::output;
use crate::parse;
use crate::profile::Session;

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token: its id is a user name, its HMAC the password, for SCRAM with tokenauth=true
    Create(Create),
    /// Tokens: one's own, those that one may renew, those that one may see
    List(List),
    /// Let a token be good for longer
    Renew(Renew),
    /// Let a token end
    Expire(Expire),
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla token create --renewer User:scheduler --lifetime 12h")]
pub(crate) struct Create {
    /// Whose rights it carries [default: the caller's]
    #[arg(long, value_name = "TYPE:NAME")]
    owner: Option<String>,
    /// Who may renew it beside the owner
    #[arg(long, value_name = "TYPE:NAME")]
    renewer: Vec<String>,
    /// How long it can be renewed at most [default: the cluster's delegation.token.max.lifetime.ms]
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    lifetime: Option<Duration>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla token list --owner User:alice")]
pub(crate) struct List {
    /// Only tokens of somebody
    #[arg(long, value_name = "TYPE:NAME")]
    owner: Vec<String>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla token renew q83vEjRWeJo= --for 6h")]
pub(crate) struct Renew {
    /// The token's HMAC
    #[arg(value_parser = hmac)]
    hmac: Hmac,
    /// How long from now [default: the cluster's delegation.token.expiry.time.ms]
    #[arg(long = "for", value_name = "DURATION", value_parser = parse::duration)]
    period: Option<Duration>,
}

/// The arguments.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ottla token expire q83vEjRWeJo=")]
pub(crate) struct Expire {
    /// The token's HMAC
    #[arg(value_parser = hmac)]
    hmac: Hmac,
    /// When, from now [default: at once]
    #[arg(long = "in", value_name = "DURATION", value_parser = parse::duration)]
    period: Option<Duration>,
}

/// The password of a token, not as text.
#[derive(Debug, Clone)]
struct Hmac(Vec<u8>);

fn hmac(text: &str) -> Result<Hmac, String> {
    BASE64.decode(text).map(Hmac).map_err(|_| "a token's HMAC is written in base64".to_owned())
}

#[derive(Debug, Serialize)]
struct Document {
    tokens: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    hmac: String,
    owner: String,
    requester: String,
    renewers: Vec<String>,
    issue_ms: i64,
    expiry_ms: i64,
    max_ms: i64,
}

#[derive(Debug, Serialize)]
struct Changed {
    expiry_ms: i64,
}

impl From<Given> for Shown {
    fn from(token: Given) -> Self {
        Self {
            id: token.id,
            hmac: BASE64.encode(&token.hmac),
            owner: token.owner,
            requester: token.requester,
            renewers: token.renewers,
            issue_ms: token.issue_ms,
            expiry_ms: token.expiry_ms,
            max_ms: token.max_ms,
        }
    }
}

fn table(document: &Document) -> String {
    let row = |token: &Shown| {
        let renewers = output::list(&token.renewers);
        vec![
            token.id.clone(),
            token.owner.clone(),
            renewers,
            token.expiry_ms.to_string(),
            token.max_ms.to_string(),
            token.hmac.clone(),
        ]
    };
    let headings = ["ID", "OWNER", "RENEWERS", "EXPIRES (MS)", "AT MOST (MS)", "HMAC"];
    output::table(&headings, document.tokens.iter().map(row))
}

/// Milliseconds; what is not given is -1.
fn ms(period: Option<Duration>) -> i64 {
    period.map_or(-1, |period| i64::try_from(period.as_millis()).unwrap_or(i64::MAX))
}

impl Token {
    pub(crate) async fn run(&self, session: &Session) -> anyhow::Result<()> {
        if !session.access.is_known() {
            return Err(Failure::usage("tokens are for callers who are known")
                .hint("--tls-ca FILE --tls-cert FILE --tls-key FILE, or --sasl-user NAME --sasl-password-file FILE")
                .into());
        }
        let mut admin = Admin::connect(session).await?;
        match self {
            Self::Create(create) => {
                let request = CreateTokenRequest {
                    owner: create.owner.clone().unwrap_or_default(),
                    renewers: create.renewer.clone(),
                    lifetime_ms: ms(create.lifetime),
                };
                let token = admin.create_token(request).await?;
                session.output.show(&Document { tokens: vec![token.into()] }, table)
            }
            Self::List(list) => {
                let tokens = admin.list_tokens(list.owner.clone()).await?;
                let tokens = tokens.into_iter().map(Shown::from).collect();
                session.output.show(&Document { tokens }, table)
            }
            Self::Renew(renew) => change(session, admin, &renew.hmac, false, renew.period).await,
            Self::Expire(expire) => change(session, admin, &expire.hmac, true, expire.period).await,
        }
    }
}

async fn change(
    session: &Session,
    mut admin: Admin,
    hmac: &Hmac,
    expire: bool,
    period: Option<Duration>,
) -> anyhow::Result<()> {
    let request = ChangeTokenRequest { hmac: hmac.0.clone().into(), expire, period_ms: ms(period) };
    let expiry_ms = admin.change_token(request).await?;
    let sentence = |changed: &Changed| format!("the token ends at {} ms since 1970", changed.expiry_ms);
    session.output.done(&Changed { expiry_ms }, sentence)
}
