//! The commands that only ask. Several proxies are asked at once, and their answers are told as one.
//!
//! Whoever does not answer is named, and the exit code is 1 then: half an answer must not pass for a whole one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Failure;
use super::act::{Operator, to_json};
use super::client::{Client, segment};
use super::merge::{self, From, Merged};
use super::screen::{self, Medium, Text, Tone};
use crate::api;

const REFRESH: Duration = Duration::from_secs(1);
/// Of `--watch` into a file or pipe.
const REFRESH_UNWATCHED: Duration = Duration::from_secs(60);

/// What the proxies answered, and what kept the others from it.
struct Answers<'a, T> {
    came: Vec<From<'a, T>>,
    failed: Vec<Failure>,
}

impl Operator {
    pub(super) async fn status(&self, app: Option<&str>, watch: bool) -> Result<u8, Failure> {
        let watched = self.medium.redraws;
        let mut seen = false;
        loop {
            let answers = match self.answers("/api/v1/status").await {
                Ok(answers) => answers,
                // A watcher outlives a restart of what it watches.
                Err(failure) if watch && seen && failure.lost_contact => {
                    eprintln!("{}", failure.message);
                    sleep(REFRESH).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            seen = true;
            let clear = if watch && watched && !self.json { "\x1b[H\x1b[J" } else { "" };
            let exit = self.tell_merged(
                answers,
                clear,
                merge::statuses,
                |status| only(status, app),
                |status| screen::status(status, app, self.medium).trim_end().to_owned(),
            )?;
            if !watch {
                return Ok(exit);
            }
            sleep(if watched { REFRESH } else { REFRESH_UNWATCHED }).await;
        }
    }

    pub(super) async fn sessions(&self, of: &str, list: bool) -> Result<u8, Failure> {
        let (app, release) = of.split_once('/').map_or((of, None), |(app, release)| (app, Some(release)));
        let path = format!("/api/v1/apps/{}/sessions{}", segment(app), if list { "?list=1" } else { "" });
        let narrow = |report: &mut api::SessionsReport| release.map_or(Ok(()), |release| of_release(report, app, release));
        let answers = self.answers::<api::SessionsReport>(&path).await?;
        self.tell_merged(answers, "", merge::sessions, narrow, |report| screen::sessions(report, self.medium).trim_end().to_owned())
    }

    pub(super) async fn explain(&self, order: &api::Explain) -> Result<u8, Failure> {
        let asked = self.each(async |client: &Client| client.post::<api::ExplainReport>("/api/v1/explain", order).await).await;
        self.tell_compared(asked?, screen::explained, |report| report)
    }

    pub(super) async fn export(&self) -> Result<u8, Failure> {
        let asked = self.each(async |client: &Client| client.text(Method::GET, "/api/v1/export", Bytes::new()).await).await;
        self.tell_compared(asked?, |yaml| yaml.trim_end().to_owned(), |yaml| json!({ "yaml": yaml }))
    }

    pub(super) async fn events(&self, follow: bool) -> Result<u8, Failure> {
        if follow {
            return self.events_as_they_come().await;
        }
        let asked = self.each(async |client: &Client| {
            let mut events = Vec::new();
            client.lines("/api/v1/events?follow=0", |line| events.extend(event(line))).await.map(|()| events)
        });
        let answers = asked.await?;
        let several = self.clients.len() > 1;
        let mut events: Vec<From<&api::Event>> = answers.came.iter().flat_map(|(url, all)| all.iter().map(|event| (*url, event))).collect();
        // Each proxy's own order stays where times are equal.
        events.sort_by(|(_, one), (_, two)| one.at.cmp(&two.at));
        if self.json {
            let document = events.iter().map(|(url, event)| event_json(event, several.then_some(url))).collect::<Result<Vec<_>, _>>()?;
            self.print(&Value::from(document).to_string())?;
        } else {
            for (url, event) in &events {
                self.print(&event_line(event, several.then_some(url)))?;
            }
        }
        Ok(complain(&answers.failed))
    }

    /// Until the last of them has ended its stream. One that ends is named at once: silence would look like peace.
    async fn events_as_they_come(&self) -> Result<u8, Failure> {
        let several = self.clients.len() > 1;
        let (send, mut come) = mpsc::unbounded_channel::<(&str, api::Event)>();
        let listening = self.clients.iter().map(|client| {
            let send = send.clone();
            async move {
                let heard = client.lines("/api/v1/events", |line| {
                    // Nobody listens any more only when the command ends.
                    event(line).into_iter().for_each(|event| drop(send.send((&client.url, event))));
                });
                let ended = heard.await;
                if several {
                    let why = ended.as_ref().err().map_or_else(String::new, |failure| format!(": {}", failure.message));
                    eprintln!("{}: no more events from there{why}", client.url);
                }
                ended
            }
        });
        let listening = join_all(listening.collect::<Vec<_>>());
        drop(send);
        let telling = async {
            while let Some((url, event)) = come.recv().await {
                let url = several.then_some(&url);
                self.print(&if self.json { event_json(&event, url)?.to_string() } else { event_line(&event, url) })?;
            }
            Ok::<(), Failure>(())
        };
        tokio::pin!(listening, telling);
        tokio::select! {
            // A reader that is gone ends it.
            Err(failure) = &mut telling => return Err(failure),
            ended = &mut listening => match ended.into_iter().collect::<Result<Vec<()>, Failure>>() {
                Err(failure) => return Err(failure),
                Ok(_) => telling.await?,
            },
        }
        Ok(0)
    }

    /// Asks all at once: one that is not there must not make the others wait for their turn.
    async fn each<T>(&self, ask: impl AsyncFn(&Client) -> Result<T, Failure>) -> Result<Answers<'_, T>, Failure> {
        let ask = &ask;
        let asked = join_all(self.clients.iter().map(|client| async move { (client.url.as_str(), ask(client).await) })).await;
        let mut answers = Answers { came: Vec::new(), failed: Vec::new() };
        for (url, answer) in asked {
            match answer {
                Ok(answer) => answers.came.push((url, answer)),
                Err(failure) if self.clients.len() > 1 => answers.failed.push(failure.because(&format!("{url}: "))),
                Err(failure) => return Err(failure),
            }
        }
        if answers.came.is_empty()
            && let Some(first) = answers.failed.pop()
        {
            let before: String = answers.failed.iter().map(|failure| format!("{}\n", failure.message)).collect();
            return Err(first.because(&before));
        }
        Ok(answers)
    }

    async fn answers<T: DeserializeOwned>(&self, path: &str) -> Result<Answers<'_, T>, Failure> {
        self.each(async |client: &Client| client.get(path).await).await
    }

    /// One answer as it is; several as one, with what they disagree about and who is missing.
    fn tell_merged<T: Serialize>(
        &self,
        answers: Answers<'_, T>,
        before: &str,
        merge: impl FnOnce(&[From<T>]) -> (T, Vec<String>),
        narrow: impl FnOnce(&mut T) -> Result<(), Failure>,
        words: impl FnOnce(&T) -> String,
    ) -> Result<u8, Failure> {
        let Answers { mut came, failed } = answers;
        if self.clients.len() == 1
            && let Some((_, mut whole)) = came.pop()
        {
            narrow(&mut whole)?;
            let text = if self.json { to_json(&whole)? } else { words(&whole) };
            return self.print(&format!("{before}{text}"));
        }
        let asked: Vec<String> = came.iter().map(|(url, _)| (*url).to_owned()).collect();
        let (mut whole, differences) = merge(&came);
        narrow(&mut whole)?;
        let no_answer = failed.iter().map(|failure| failure.message.clone()).collect();
        let merged = Merged { whole, asked, no_answer, differences };
        let text = if self.json { to_json(&merged)? } else { format!("{}\n\n{}", words(&merged.whole), notes(&merged, self.medium)) };
        self.print(&format!("{before}{}", text.trim_end()))?;
        Ok(u8::from(!failed.is_empty()))
    }

    /// Answers that cannot be added up: told once where all are the same, else each with its address. A script always gets them by
    /// address.
    fn tell_compared<T: Serialize + PartialEq, J: Serialize>(
        &self,
        answers: Answers<'_, T>,
        words: impl Fn(&T) -> String,
        document: impl Fn(T) -> J,
    ) -> Result<u8, Failure> {
        let Answers { came, failed } = answers;
        let agreed = came.windows(2).all(|pair| matches!(pair, [(_, one), (_, two)] if one == two));
        if self.json {
            let mut documents = Vec::new();
            for (url, answer) in came {
                documents.push((url, serde_json::to_value(document(answer)).map_err(|error| Failure::error(error.to_string()))?));
            }
            let whole = match documents.as_slice() {
                [(_, only)] if self.clients.len() == 1 => only.clone(),
                all => all.iter().map(|(url, answer)| ((*url).to_owned(), answer.clone())).collect::<serde_json::Map<_, _>>().into(),
            };
            self.print(&whole.to_string())?;
            return Ok(complain(&failed));
        }
        for (url, answer) in came.iter().take(if agreed { 1 } else { came.len() }) {
            self.print(&if agreed { words(answer) } else { format!("# {url}\n{}\n", words(answer)) })?;
        }
        if !agreed {
            eprintln!("they differ: see above");
        }
        Ok(complain(&failed))
    }
}

/// What is said below a merged answer.
fn notes<T>(merged: &Merged<T>, medium: Medium) -> String {
    let mut text = String::new();
    for difference in &merged.differences {
        text.push_str(&format!("{}: {difference}\n", Text::of(Tone::Change, "they disagree").on(medium)));
    }
    for missing in &merged.no_answer {
        text.push_str(&format!("{}: {missing}\n", Text::of(Tone::Bad, "NO ANSWER").on(medium)));
    }
    text + &format!("asked: {}; counts are summed, a session that several have seen counts for each\n", merged.asked.join(", "))
}

/// Names who did not answer; the exit code.
fn complain(failed: &[Failure]) -> u8 {
    for failure in failed {
        eprintln!("NO ANSWER: {}", failure.message);
    }
    u8::from(!failed.is_empty())
}

/// Only that app, or the names of those that there are.
fn only(status: &mut api::Status, app: Option<&str>) -> Result<(), Failure> {
    let Some(app) = app else { return Ok(()) };
    let known: Vec<&str> = status.apps.iter().map(|(name, _)| name).collect();
    if !known.contains(&app) {
        return Err(Failure::error(format!("app '{app}' does not exist; apps are: {}", known.join(", "))));
    }
    status.apps.0.retain(|(name, _)| name == app);
    Ok(())
}

fn of_release(report: &mut api::SessionsReport, app: &str, release: &str) -> Result<(), Failure> {
    let Some(sessions) = report.releases.get(release).copied() else {
        let known: Vec<&str> = report.releases.iter().map(|(name, _)| name).collect();
        return Err(Failure::error(format!("release '{app}/{release}' does not exist; releases are: {}", known.join(", "))));
    };
    report.releases = [(release.to_owned(), sessions)].into_iter().collect();
    report.sessions = sessions;
    // Ages are told for the whole app only.
    (report.ages, report.idle) = (Vec::new(), Vec::new());
    let prefix = format!("{app}/{release}/");
    if let Some(list) = &mut report.list {
        list.retain(|session| session.backend.starts_with(&prefix));
    }
    Ok(())
}

/// The event of a line of the stream, if it holds one.
fn event(line: &str) -> Option<api::Event> {
    line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok())
}

fn event_line(event: &api::Event, proxy: Option<&&str>) -> String {
    let line = screen::event(event);
    proxy.map_or_else(|| line.clone(), |proxy| format!("{line}  ({proxy})"))
}

fn event_json(event: &api::Event, proxy: Option<&&str>) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(event).map_err(|error| Failure::error(error.to_string()))?;
    if let (Some(proxy), Some(fields)) = (proxy, value.as_object_mut()) {
        fields.insert("proxy".to_owned(), Value::from(*proxy));
    }
    Ok(value)
}
