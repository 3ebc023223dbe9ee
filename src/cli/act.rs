//! The commands that talk to a running process: each is one call of the API.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::args::{Ask, Command, Waiting};
use super::client::{Client, segment};
use super::wait::{Verdict, wait};
use super::{Failure, screen};
use crate::api;
use crate::config::scalar::parse_duration;

const REFRESH: Duration = Duration::from_secs(1);
/// Of `--watch` into a file or pipe.
const REFRESH_UNWATCHED: Duration = Duration::from_secs(60);

/// Whom to ask, and how to answer.
struct Operator {
    clients: Vec<Client>,
    json: bool,
    /// Standard output.
    out: RefCell<Box<dyn Write>>,
}

/// Does what `command` says and writes the answer to `out`; returns the exit code.
///
/// # Errors
/// Whatever is to be told on standard error, with its exit code.
pub async fn act(ask: &Ask, command: Command, out: Box<dyn Write>) -> Result<u8, Failure> {
    let operator = Operator { clients: Client::all(ask)?, json: ask.json, out: RefCell::new(out) };
    operator.act(command).await
}

impl Operator {
    async fn act(&self, command: Command) -> Result<u8, Failure> {
        match command {
            Command::Status { app, watch } => self.status(app.as_deref(), watch).await,
            Command::Stage { app, release, backends, path } => self.stage(&app, release, backends, path).await,
            Command::Promote { app, release, from, force, waiting } => {
                let order = api::Promote { release, from, force, then: waiting.then(), deadline: waiting.deadline() };
                self.promote(&format!("/api/v1/apps/{}/promote", segment(&app)), &order, &waiting, promoted).await
            }
            Command::Rollback { app, to, from, force, waiting } => {
                let order = api::Rollback { to, from, force, then: waiting.then(), deadline: waiting.deadline() };
                self.promote(&format!("/api/v1/apps/{}/rollback", segment(&app)), &order, &waiting, rolled_back).await
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
                self.change("/api/v1/evict", &order, words).await
            }
            Command::Stop { release: (app, release), force, wait, timeout } => {
                if wait && let Some(exit) = self.drained(&format!("{app}/{release}"), timeout).await? {
                    return Ok(exit);
                }
                let path = format!("/api/v1/apps/{}/releases/{}/stop", segment(&app), segment(&release));
                self.change(&path, &api::Stop { force }, |done: &api::Done| done.done.clone()).await
            }
            Command::Remove { release: (app, release) } => {
                let path = format!("/api/v1/apps/{}/releases/{}", segment(&app), segment(&release));
                let answers = self.everywhere(async |client: &Client| client.delete::<api::Done>(&path).await).await?;
                self.tell(&answers, |done| done.done.clone())
            }
            Command::Wait { drain, timeout } => {
                let drains = self.clients.iter().map(|client| (client.clone(), drain.clone())).collect();
                self.waited(drains, timeout).await
            }
            Command::Sessions { app, list } => self.sessions(&app, list).await,
            Command::Explain { app, cookie, path, headers } => {
                let cookie = cookie.map(|cookie| ("cookie".to_owned(), cookie));
                let order = api::Explain { app, path, headers: headers.into_iter().chain(cookie).collect() };
                let report: api::ExplainReport = self.one()?.post("/api/v1/explain", &order).await?;
                self.tell_one(&report, screen::explained)
            }
            Command::Export => {
                let yaml = self.one()?.text(Method::GET, "/api/v1/export", Bytes::new()).await?;
                if self.json { self.print(&json!({ "yaml": yaml }).to_string()) } else { self.print(yaml.trim_end()) }
            }
            Command::Events { follow } => self.events(follow).await,
            Command::Reload { dry_run, force } => {
                let order = api::Reload { dry_run, force };
                let answers = self.everywhere(async |client: &Client| client.post::<api::Reloaded>("/api/v1/reload", &order).await).await?;
                let told = self.tell(&answers, screen::reloaded)?;
                Ok(if answers.iter().any(|(_, answer)| answer.result == "would_refuse") { 1 } else { told })
            }
            Command::Upgrade => self.change("/api/v1/upgrade", &json!({}), |done: &Value| done.to_string()).await,
            Command::Run(_) | Command::Check(_) | Command::Demo { .. } => Err(Failure::usage("this command talks to no running process")),
        }
    }

    /// The only address: for questions whose answers cannot be merged yet.
    fn one(&self) -> Result<&Client, Failure> {
        match self.clients.as_slice() {
            [client] => Ok(client),
            _ => Err(Failure::usage(
                "this version merges no answers of several addresses: name one with --admin, and ask the others in turn",
            )),
        }
    }

    /// Makes a change on all addresses or, as far as that can be known beforehand, on none: all must be reachable before the
    /// first is changed.
    async fn everywhere<T>(&self, change: impl AsyncFn(&Client) -> Result<T, Failure>) -> Result<Vec<(&Client, T)>, Failure> {
        if self.clients.len() > 1 {
            for client in &self.clients {
                client.get::<api::Status>("/api/v1/status").await.map_err(|failure| failure.because("nothing was changed anywhere: "))?;
            }
        }
        let mut done: Vec<(&Client, T)> = Vec::new();
        for client in &self.clients {
            match change(client).await {
                Ok(answer) => done.push((client, answer)),
                Err(failure) if self.clients.len() == 1 => return Err(failure),
                Err(failure) if done.is_empty() => return Err(failure.because(&format!("nothing was changed anywhere; {}: ", client.url))),
                Err(failure) => {
                    let changed: Vec<&str> = done.iter().map(|(client, _)| client.url.as_str()).collect();
                    let what = format!("changed on {}, but NOT on {} and those after it: ", changed.join(", "), client.url);
                    return Err(failure.because(&what));
                }
            }
        }
        Ok(done)
    }

    async fn change<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        order: &impl Serialize,
        words: impl Fn(&T) -> String,
    ) -> Result<u8, Failure> {
        let answers = self.everywhere(async |client: &Client| client.post::<T>(path, order).await).await?;
        self.tell(&answers, words)
    }

    async fn stage(&self, app: &str, name: String, backends: Vec<(String, String)>, path: Option<String>) -> Result<u8, Failure> {
        let backends = backends.into_iter().map(|(name, address)| (name, api::StageBackend::Address(address))).collect();
        let words = format!("staged {app}/{name}: nobody is sent there yet; next: tidegate promote {app} {name} --wait");
        let order = api::Stage { name, backends, path };
        self.change(&format!("/api/v1/apps/{}/releases", segment(app)), &order, |_: &Value| words.clone()).await
    }

    async fn promote(
        &self,
        path: &str,
        order: &impl Serialize,
        waiting: &Waiting,
        words: fn(&api::Promoted) -> String,
    ) -> Result<u8, Failure> {
        waiting.check()?;
        let answers = self.everywhere(async |client: &Client| client.post::<api::Promoted>(path, order).await).await?;
        if !waiting.wait {
            return self.tell(&answers, words);
        }
        for (_, answer) in &answers {
            eprintln!("{}", words(answer));
        }
        let drains = answers.iter().flat_map(|(client, answer)| answer.drains.iter().map(|id| ((*client).clone(), id.clone()))).collect();
        self.waited(drains, waiting.limit()?).await
    }

    async fn drain(&self, order: &api::DrainOrder, wait: bool) -> Result<u8, Failure> {
        let answers = self.everywhere(async |client: &Client| client.post::<api::DrainStatus>("/api/v1/drains", order).await).await?;
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
            wait(drains, limit).await?
        };
        if self.json {
            self.print(&json!({ "exit": verdict as u8, "drains": last }).to_string())?;
        }
        Ok(verdict as u8)
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
        let (verdict, _) = wait(drains, limit).await?;
        Ok((verdict != Verdict::Done).then_some(verdict as u8))
    }

    async fn intent(&self, target: String, intent: &str, force: bool) -> Result<u8, Failure> {
        let order = api::IntentOrder { target, intent: intent.to_owned(), force };
        self.change("/api/v1/intent", &order, |done: &api::IntentSet| format!("{}: {}", done.target, done.intent)).await
    }

    async fn status(&self, app: Option<&str>, watch: bool) -> Result<u8, Failure> {
        let client = self.one()?;
        let terminal = std::io::stdout().is_terminal();
        let mut seen = false;
        loop {
            let mut status: api::Status = match client.get("/api/v1/status").await {
                Ok(status) => status,
                // A watcher outlives a restart of what it watches.
                Err(failure) if watch && seen && failure.lost_contact => {
                    eprintln!("{}", failure.message);
                    sleep(REFRESH).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            seen = true;
            if let Some(app) = app {
                let known: Vec<&str> = status.apps.iter().map(|(name, _)| name).collect();
                if !known.contains(&app) {
                    return Err(Failure::error(format!("app '{app}' does not exist; apps are: {}", known.join(", "))));
                }
                status.apps.0.retain(|(name, _)| name == app);
            }
            let clear = if watch && terminal && !self.json { "\x1b[H\x1b[J" } else { "" };
            let text = if self.json { to_json(&status)? } else { screen::status(&status, app).trim_end().to_owned() };
            self.print(&format!("{clear}{text}"))?;
            if !watch {
                return Ok(0);
            }
            sleep(if terminal { REFRESH } else { REFRESH_UNWATCHED }).await;
        }
    }

    async fn sessions(&self, of: &str, list: bool) -> Result<u8, Failure> {
        let (app, release) = of.split_once('/').map_or((of, None), |(app, release)| (app, Some(release)));
        let path = format!("/api/v1/apps/{}/sessions{}", segment(app), if list { "?list=1" } else { "" });
        let mut report: api::SessionsReport = self.one()?.get(&path).await?;
        if let Some(release) = release {
            let Some(sessions) = report.releases.get(release).copied() else {
                let known: Vec<&str> = report.releases.iter().map(|(name, _)| name).collect();
                return Err(Failure::error(format!("release '{of}' does not exist; releases are: {}", known.join(", "))));
            };
            report.releases = [(release.to_owned(), sessions)].into_iter().collect();
            report.sessions = sessions;
            // Ages are told for the whole app only.
            (report.ages, report.idle) = (Vec::new(), Vec::new());
            let prefix = format!("{app}/{release}/");
            if let Some(list) = &mut report.list {
                list.retain(|session| session.backend.starts_with(&prefix));
            }
        }
        self.tell_one(&report, |report| screen::sessions(report).trim_end().to_owned())
    }

    async fn events(&self, follow: bool) -> Result<u8, Failure> {
        let client = self.one()?;
        let mut document = Vec::new();
        let mut failed = None;
        let path = if follow { "/api/v1/events" } else { "/api/v1/events?follow=0" };
        let lines = client.lines(path, |line| {
            let Some(event) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str::<api::Event>(data).ok()) else { return };
            if self.json && !follow {
                document.push(event);
                return;
            }
            let text = if self.json { to_json(&event) } else { Ok(screen::event(&event)) };
            failed = text.and_then(|text| self.print(&text)).err().or(failed.take());
        });
        lines.await?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        if self.json && !follow {
            return self.print(&to_json(&document)?);
        }
        Ok(0)
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
    fn print(&self, text: &str) -> Result<u8, Failure> {
        let mut out = self.out.borrow_mut();
        match writeln!(out, "{text}").and_then(|()| out.flush()) {
            Ok(()) => Ok(0),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure { exit: 0, ..Failure::error("") }),
            Err(error) => Err(Failure::error(format!("standard output: {error}"))),
        }
    }
}

fn to_json(value: &impl Serialize) -> Result<String, Failure> {
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
