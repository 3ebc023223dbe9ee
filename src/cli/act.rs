//! The commands that talk to a running process: each is one call of the API. Those that change something are here, what only asks is
//! in [`super::ask`].

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Failure;
use super::args::{Ask, Command, Waiting, When};
use super::client::{Client, segment};
use super::everywhere::Plan;
use super::screen::{self, Medium};
use super::wait::{Verdict, wait};
use crate::api;
use crate::config::scalar::parse_duration;

/// Whom to ask, and how to answer.
pub(super) struct Operator {
    pub(super) clients: Vec<Client>,
    pub(super) json: bool,
    /// When standard error is coloured.
    color: When,
    /// Standard output.
    out: RefCell<Box<dyn Write>>,
    /// What can be shown there.
    pub(super) medium: Medium,
    /// Whether anything was written there.
    has_told: Cell<bool>,
}

/// Where the answer goes.
pub struct Out {
    /// Standard output, or what a test reads.
    pub write: Box<dyn Write>,
    /// What can be shown there.
    pub medium: Medium,
}

impl Out {
    /// Standard output.
    pub fn standard(color: When) -> Out {
        Out { write: Box::new(std::io::stdout()), medium: Medium::of(color, &std::io::stdout()) }
    }
}

/// Does what `command` says and writes the answer to `out`; returns the exit code.
///
/// # Errors
/// Whatever is to be told on standard error, with its exit code.
pub async fn act(ask: &Ask, command: Command, out: Out) -> Result<u8, Failure> {
    let (clients, wrong) = Client::all(ask).map_or_else(|failure| (Vec::new(), Some(failure)), |clients| (clients, None));
    let operator = Operator {
        clients,
        json: ask.json,
        out: RefCell::new(out.write),
        medium: out.medium,
        color: ask.color,
        has_told: Cell::new(false),
    };
    let done = match wrong {
        None => operator.act(command).await,
        Some(failure) => Err(failure),
    };
    // One document: what was told already is the answer, such as the events up to an end that nobody expected.
    match &done {
        Err(failure) if operator.json && !operator.has_told.get() && !failure.message.is_empty() => {
            operator.print(&to_json(&failure.document())?)?;
        }
        _ => {}
    }
    done
}

impl Operator {
    async fn act(&self, command: Command) -> Result<u8, Failure> {
        match command {
            Command::Status { app, watch } => self.status(app.as_deref(), watch).await,
            Command::Stage { app, release, backends, path } => self.stage(&app, release, backends, path).await,
            Command::Promote { app, release, from, force, waiting } => {
                let order = api::Promote { release, from, force, then: waiting.then(), deadline: waiting.deadline() };
                let (release, from) = (Some(order.release.as_str()), order.from.as_deref());
                let plan = Plan::Promote { app: &app, release, from, force };
                self.promote(plan, &format!("/api/v1/apps/{}/promote", segment(&app)), &order, &waiting, promoted).await
            }
            Command::Rollback { app, to, from, force, waiting } => {
                let order = api::Rollback { to, from, force, then: waiting.then(), deadline: waiting.deadline() };
                let plan = Plan::Promote { app: &app, release: order.to.as_deref(), from: order.from.as_deref(), force };
                self.promote(plan, &format!("/api/v1/apps/{}/rollback", segment(&app)), &order, &waiting, rolled_back).await
            }
            Command::Drain { target, wait, deadline, then, force } => {
                let order = api::DrainOrder { target, deadline, then: then.map(|then| then.as_str().to_owned()), force };
                self.drain(&order, wait).await
            }
            Command::Serve { target } => self.intent(target, "serve", false).await,
            Command::Maintain { target, force } => self.intent(target, "maintain", force).await,
            Command::Evict { target, idle } => {
                let words = |done: &api::Evicted| format!("{} evicted from {target}", screen::many(done.evicted, "session"));
                let order = api::Evict { target: target.clone(), idle };
                self.planned(Plan::Final { target: &target }, "/api/v1/evict", &order, words).await
            }
            Command::Lost { target } => {
                let words = |done: &api::SessionsLost| format!("{} lost with the restart of {target}", screen::many(done.lost, "session"));
                self.change("/api/v1/lost", &api::Lost { target: target.clone() }, words).await
            }
            Command::Stop { release: (app, release), force, wait, timeout } => {
                if wait && let Some(exit) = self.drained(&format!("{app}/{release}"), timeout).await? {
                    return Ok(exit);
                }
                let path = format!("/api/v1/apps/{}/releases/{}/stop", segment(&app), segment(&release));
                let target = format!("{app}/{release}");
                self.planned(Plan::Final { target: &target }, &path, &api::Stop { force }, |done: &api::Done| done.done.clone()).await
            }
            Command::Remove { release: (app, release) } => {
                let path = format!("/api/v1/apps/{}/releases/{}", segment(&app), segment(&release));
                let target = format!("{app}/{release}");
                let forget = async |client: &Client| client.delete::<api::Done>(&path).await;
                let answers = self.everywhere_by(Plan::Final { target: &target }, forget).await?;
                self.tell(&answers, |done| done.done.clone())
            }
            Command::Wait { drain, timeout } => self.waited(self.drains_of(&drain).await?, timeout).await,
            Command::Sessions { app, list } => self.sessions(&app, list).await,
            Command::Explain { app, cookie, path, headers } => {
                let cookie = cookie.map(|cookie| ("cookie".to_owned(), cookie));
                let order = api::Explain { app, path, headers: headers.into_iter().chain(cookie).collect() };
                self.explain(&order).await
            }
            Command::Export => self.export().await,
            Command::Events { follow } => self.events(follow).await,
            Command::Reload { dry_run, force } => {
                let order = api::Reload { dry_run, force };
                let plan = if dry_run { Plan::Other } else { Plan::Reload { force } };
                let post = async |client: &Client| client.post::<api::Reloaded>("/api/v1/reload", &order).await;
                let answers = self.everywhere_by(plan, post).await?;
                let told = self.tell(&answers, screen::reloaded)?;
                Ok(if answers.iter().any(|(_, answer)| answer.result == "would_refuse") { 1 } else { told })
            }
            Command::Upgrade => {
                let words = |done: &api::Upgraded| format!("process {} serves; the one before finishes what it has", done.pid);
                self.change("/api/v1/upgrade", &json!({}), words).await
            }
            Command::Run { .. } | Command::Check(_) | Command::Demo { .. } | Command::Completions { .. } | Command::Man { .. } => {
                Err(Failure::usage("this command talks to no running process"))
            }
        }
    }

    /// A change that cannot be foreseen or undone.
    async fn change<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        order: &impl Serialize,
        words: impl Fn(&T) -> String,
    ) -> Result<u8, Failure> {
        let answers = self.everywhere(async |client: &Client| client.post::<T>(path, order).await).await?;
        self.tell(&answers, words)
    }

    async fn planned<T: DeserializeOwned + Serialize>(
        &self,
        plan: Plan<'_>,
        path: &str,
        order: &impl Serialize,
        words: impl Fn(&T) -> String,
    ) -> Result<u8, Failure> {
        let answers = self.everywhere_by(plan, async |client: &Client| client.post::<T>(path, order).await).await?;
        self.tell(&answers, words)
    }

    async fn stage(&self, app: &str, name: String, backends: Vec<(String, String)>, path: Option<String>) -> Result<u8, Failure> {
        let backends = backends.into_iter().map(|(name, address)| (name, api::StageBackend::Address(address))).collect();
        let words = format!("staged {app}/{name}: nobody is sent there yet; next: tidegate promote {app} {name} --wait");
        let order = api::Stage { name, backends, path };
        let plan = Plan::Stage { app, release: &order.name };
        self.planned(plan, &format!("/api/v1/apps/{}/releases", segment(app)), &order, |_: &Value| words.clone()).await
    }

    async fn promote(
        &self,
        plan: Plan<'_>,
        path: &str,
        order: &impl Serialize,
        waiting: &Waiting,
        words: fn(&api::Promoted) -> String,
    ) -> Result<u8, Failure> {
        waiting.check()?;
        let answers = self.everywhere_by(plan, async |client: &Client| client.post::<api::Promoted>(path, order).await).await?;
        let differ = answers.first().is_some_and(|(_, first)| answers.iter().any(|(_, answer)| answer.current != first.current));
        if differ {
            let each: Vec<String> = answers.iter().map(|(client, answer)| format!("{}: {}", client.url, answer.current)).collect();
            let what = format!("they went to different releases, each by its own history: {}", each.join(", "));
            return Err(Failure::error(format!("{what}; name the one to go to: --to RELEASE")));
        }
        if !waiting.wait {
            return self.tell(&answers, words);
        }
        for (client, answer) in &answers {
            let at = if answers.len() > 1 { format!("{}: ", client.url) } else { String::new() };
            eprintln!("{at}{}", words(answer));
        }
        let drains = answers.iter().flat_map(|(client, answer)| answer.drains.iter().map(|id| ((*client).clone(), id.clone()))).collect();
        self.waited(drains, waiting.limit()?).await
    }

    async fn drain(&self, order: &api::DrainOrder, wait: bool) -> Result<u8, Failure> {
        let plan = Plan::Intent { target: &order.target };
        let answers =
            self.everywhere_by(plan, async |client: &Client| client.post::<api::DrainStatus>("/api/v1/drains", order).await).await?;
        if wait {
            return self.waited(answers.into_iter().map(|(client, drain)| (client.clone(), drain.id)).collect(), None).await;
        }
        self.tell(&answers, |d| match &d.verdict {
            Some(verdict) => format!("{} is {verdict} already", d.target),
            None => format!("{} drains: {}; to wait for it: tidegate wait {}", d.target, screen::left(d), d.id),
        })
    }

    async fn waited(&self, drains: Vec<(Client, String)>, limit: Option<Duration>) -> Result<u8, Failure> {
        let (verdict, last) = if drains.is_empty() {
            eprintln!("nothing drains: there is nothing to wait for");
            (Verdict::Done, Vec::new())
        } else {
            wait(drains, limit, Medium::of(self.color, &std::io::stderr())).await?
        };
        if self.json {
            self.print(&json!({ "exit": verdict as u8, "drains": last }).to_string())?;
        }
        Ok(verdict as u8)
    }

    /// The drain that `named` means on each address: by its number, or the latest of a TARGET. Numbers are each proxy's own, so several
    /// must mean the same target by one.
    async fn drains_of(&self, named: &str) -> Result<Vec<(Client, String)>, Failure> {
        let by_target = named.contains(['/', ':']);
        if let ([client], false) = (self.clients.as_slice(), by_target) {
            return Ok(vec![(client.clone(), named.to_owned())]);
        }
        let number = if named.starts_with('d') { named.to_owned() } else { format!("d{named}") };
        let mut found: Vec<(&Client, api::DrainStatus)> = Vec::new();
        for client in &self.clients {
            let status: api::Status = client.get("/api/v1/status").await?;
            let meant = |d: &api::DrainStatus| if by_target { d.target == named } else { d.id == number };
            match status.drains.into_iter().rev().find(meant) {
                Some(drain) => found.push((client, drain)),
                None if by_target => {
                    return Err(Failure::error(format!("{}: nothing drains {named} there; see tidegate status", client.url)));
                }
                None => return Err(Failure::error(format!("{}: drain '{named}' does not exist; see tidegate status", client.url))),
            }
        }
        if let [(first, drain), ..] = found.as_slice()
            && let Some((other, another)) = found.iter().find(|(_, other)| other.target != drain.target)
        {
            let (target, url) = (&drain.target, &first.url);
            let what = format!("{named} is {target} on {url}, but {} on {}", another.target, other.url);
            return Err(Failure::error(format!("{what}; name the target: tidegate wait {target}")));
        }
        Ok(found.into_iter().map(|(client, drain)| (client.clone(), drain.id)).collect())
    }

    /// Waits for the drains of a release that run; `None` when they are done and the release may be closed, else the exit code.
    async fn drained(&self, target: &str, limit: Option<Duration>) -> Result<Option<u8>, Failure> {
        let mut drains = Vec::new();
        for client in &self.clients {
            let status: api::Status = client.get("/api/v1/status").await?;
            let running = status.drains.into_iter().filter(|d| d.target == target && d.verdict.is_none());
            drains.extend(running.map(|d| (client.clone(), d.id)));
        }
        if drains.is_empty() {
            return Ok(None);
        }
        let (verdict, _) = wait(drains, limit, Medium::of(self.color, &std::io::stderr())).await?;
        Ok((verdict != Verdict::Done).then_some(verdict as u8))
    }

    async fn intent(&self, target: String, intent: &str, force: bool) -> Result<u8, Failure> {
        let order = api::IntentOrder { target, intent: intent.to_owned(), force };
        self.planned(Plan::Intent { target: &order.target }, "/api/v1/intent", &order, |done: &api::IntentSet| {
            format!("{}: {}", done.target, done.intent)
        })
        .await
    }

    fn tell_one<T: Serialize>(&self, answer: &T, words: impl Fn(&T) -> String) -> Result<u8, Failure> {
        if self.json { self.print(&to_json(answer)?) } else { self.print(&words(answer)) }
    }

    /// One answer as it is; several by address.
    fn tell<T: Serialize>(&self, answers: &[(&Client, T)], words: impl Fn(&T) -> String) -> Result<u8, Failure> {
        if let [(_, answer)] = answers {
            return self.tell_one(answer, words);
        }
        if self.json {
            let mut document = Map::new();
            for (client, answer) in answers {
                document.insert(client.url.clone(), serde_json::to_value(answer).map_err(|error| Failure::error(error.to_string()))?);
            }
            return self.print(&Value::Object(document).to_string());
        }
        for (client, answer) in answers {
            self.print(&format!("{}: {}", client.url, words(answer)))?;
        }
        Ok(0)
    }

    /// A reader that has seen enough (`| head`) is no error.
    pub(super) fn print(&self, text: &str) -> Result<u8, Failure> {
        let mut out = self.out.borrow_mut();
        self.has_told.set(true);
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(0),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure { exit: 0, ..Failure::error("") }),
            Err(error) => Err(Failure::error(format!("standard output: {error}"))),
        }
    }
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::error(error.to_string()))
}

fn promoted(answer: &api::Promoted) -> String {
    match answer.drains.as_slice() {
        [] => format!("{} is current; nothing drains", answer.current),
        drains => format!(
            "{} is current; drains: {} (tidegate wait {})",
            answer.current,
            drains.join(", "),
            drains.last().map_or("", String::as_str)
        ),
    }
}

/// A rollback always sets a drain going, except the one that has happened.
fn rolled_back(answer: &api::Promoted) -> String {
    if answer.drains.is_empty() { format!("already rolled back: {}", promoted(answer)) } else { promoted(answer) }
}

impl Waiting {
    /// What would silently do nothing is refused before anything is done.
    fn check(&self) -> Result<(), Failure> {
        if self.timeout.is_some() && !self.wait && self.then.is_none() {
            return Err(Failure::usage(
                "--timeout bounds nothing here: add --wait to wait so long, or --then to make it the drain's deadline",
            ));
        }
        Ok(())
    }

    fn then(&self) -> Option<String> {
        self.then.map(|then| then.as_str().to_owned())
    }

    /// A timeout with a `--then` is a deadline of the drain itself; alone it only ends the waiting.
    fn deadline(&self) -> Option<String> {
        self.then.and(self.timeout.clone())
    }

    fn limit(&self) -> Result<Option<Duration>, Failure> {
        if self.then.is_some() {
            return Ok(None);
        }
        let parse = |text: &String| parse_duration(text).map_err(|wrong| Failure::usage(wrong.to_string()));
        self.timeout.as_ref().map(parse).transpose()
    }
}
