//! A change on several proxies: on all of them, or on none.
//!
//! There is no lock and no vote between proxies. All are asked first whether they would refuse, then changed one after the other, and
//! what was done is undone when a later one refuses all the same. What cannot be undone is said, with the place it was left in.

use futures_util::future::join_all;
use serde_json::json;

use super::client::{Client, segment};
use super::{Failure, act::Operator};
use crate::api;

/// What a change is about, as far as it can be foreseen and undone.
#[derive(Clone, Copy, Debug)]
pub enum Plan<'a> {
    /// Promotion or rollback; the release where it is named.
    Promote { app: &'a str, release: Option<&'a str>, from: Option<&'a str>, force: bool },
    /// A new release.
    Stage { app: &'a str, release: &'a str },
    /// Intents of a backend or host, a drain among them.
    Intent { target: &'a str },
    /// Sessions are sent away, or a release is closed or forgotten: there is no way back.
    Final { target: &'a str },
    /// The configuration files, each machine's own: a dry run on all comes first, and there is no way back.
    Reload { force: bool },
    /// Nothing is known of it.
    Other,
}

impl Operator {
    /// As [`Operator::everywhere_by`], of a change that cannot be foreseen or undone.
    pub(super) async fn everywhere<T>(&self, change: impl AsyncFn(&Client) -> Result<T, Failure>) -> Result<Vec<(&Client, T)>, Failure> {
        self.everywhere_by(Plan::Other, change).await
    }

    /// Makes a change on all addresses, or on none as far as that can be had.
    pub(super) async fn everywhere_by<T>(
        &self,
        plan: Plan<'_>,
        change: impl AsyncFn(&Client) -> Result<T, Failure>,
    ) -> Result<Vec<(&Client, T)>, Failure> {
        if let [only] = self.clients.as_slice() {
            return Ok(vec![(only, change(only).await?)]);
        }
        let before = self.nobody_objects(plan).await?;
        let mut done: Vec<(&Client, T)> = Vec::new();
        for client in &self.clients {
            match change(client).await {
                Ok(answer) => done.push((client, answer)),
                Err(failure) => {
                    let changed: Vec<_> = before.iter().take(done.len()).collect();
                    return Err(undone(plan, &changed, client, failure).await);
                }
            }
        }
        Ok(done)
    }

    /// All must be there and have no reason to refuse before the first is changed. Their present state.
    async fn nobody_objects(&self, plan: Plan<'_>) -> Result<Vec<(&Client, api::Status)>, Failure> {
        let asked = join_all(self.clients.iter().map(|client| async move { (client, client.get::<api::Status>("/api/v1/status").await) }));
        let mut before = Vec::new();
        for (client, status) in asked.await {
            let status = status.map_err(|failure| failure.because("nothing was changed anywhere: "))?;
            if let Some(objection) = objection(plan, &status) {
                return Err(Failure::error(format!("nothing was changed anywhere: {} would refuse: {objection}", client.url)));
            }
            before.push((client, status));
        }
        if let Plan::Reload { force } = plan {
            for (client, _) in &before {
                let order = json!({ "dry_run": true, "force": force });
                let refused = |why: &str| format!("nothing was changed anywhere: {} would refuse: {why}", client.url);
                let tried: api::Reloaded = client.post("/api/v1/reload", &order).await.map_err(|failure| failure.because(&refused("")))?;
                if tried.result == "would_refuse" {
                    let problems: Vec<String> = tried.problems.iter().map(super::screen::problem).collect();
                    let refusal = api::Error { error: refused("the reload"), problems: tried.problems, ..api::Error::default() };
                    return Err(Failure { refusal: Some(Box::new(refusal)), ..Failure::error(refused(&problems.join("\n"))) });
                }
            }
        }
        Ok(before)
    }
}

/// Why a process in this state would refuse; it has the last word, so what is not sure is no objection.
fn objection(plan: Plan<'_>, status: &api::Status) -> Option<String> {
    let (app, release) = match plan {
        Plan::Promote { app, release, .. } => (app, release),
        Plan::Stage { app, .. } => (app, None),
        Plan::Intent { target } | Plan::Final { target } => {
            let mut names = target.split('/');
            (names.next().filter(|app| !app.starts_with("host:"))?, names.next())
        }
        Plan::Reload { .. } | Plan::Other => return None,
    };
    let names = |known: Vec<&str>| known.join(", ");
    let Some(found) = status.apps.get(app) else {
        return Some(format!("app '{app}' does not exist; apps are: {}", names(status.apps.iter().map(|(name, _)| name).collect())));
    };
    if let Plan::Stage { release, .. } = plan {
        return found.releases.get(release).map(|_| format!("release {app}/{release} exists already"));
    }
    let release = release?;
    let Some(state) = found.releases.get(release) else {
        let known = names(found.releases.iter().map(|(name, _)| name).collect());
        return Some(format!("release '{app}/{release}' does not exist; releases are: {known}"));
    };
    let Plan::Promote { from, force, .. } = plan else { return None };
    if let Some(from) = from.filter(|from| *from != found.current && release != found.current) {
        return Some(format!("current is '{}', not '{from}'", found.current));
    }
    let hopeless = |health: &str| matches!(health, "down" | "stalled");
    let dead = !force && found.current != release && state.backends.iter().all(|(_, backend)| hopeless(&backend.health));
    dead.then(|| format!("{app}/{release} has no healthy backend; --force promotes it all the same"))
}

/// Takes back what was done on `changed`, each with its state before, because `at` has not followed. What is where in the end.
async fn undone(plan: Plan<'_>, changed: &[&(&Client, api::Status)], at: &Client, why: Failure) -> Failure {
    let unsure = if why.lost_contact { format!("; whether {} was changed is not known", at.url) } else { String::new() };
    if changed.is_empty() {
        let before = if why.lost_contact { "nothing was changed elsewhere" } else { "nothing was changed anywhere" };
        return why.because(&format!("{before}{unsure}; {}: ", at.url));
    }
    let (mut back, mut left) = (Vec::new(), Vec::new());
    for (client, before) in changed.iter().rev() {
        match undo(plan, client, before).await {
            Ok(how) => back.push(format!("{}: {how}", client.url)),
            Err(failure) => left.push(format!("{}: {}", client.url, failure.message)),
        }
    }
    let mut told = String::new();
    if !left.is_empty() {
        let urls: Vec<&str> = changed.iter().map(|(client, _)| client.url.as_str()).collect();
        told = format!("changed on {}, but NOT on {} and those after it: ", urls.join(", "), at.url);
    } else if !back.is_empty() {
        told = format!("nothing stays changed, because {} did not follow: ", at.url);
    }
    let mut message = format!("{told}{}{unsure}", why.message);
    for line in &back {
        message.push_str(&format!("\ntaken back on {line}"));
    }
    for line in &left {
        message.push_str(&format!("\nNOT taken back on {line}"));
    }
    why.told(message, &told)
}

/// How it was taken back.
async fn undo(plan: Plan<'_>, client: &Client, before: &api::Status) -> Result<String, Failure> {
    match plan {
        Plan::Promote { app, .. } => {
            let now: api::Status = client.get("/api/v1/status").await?;
            let current = |status: &api::Status| status.apps.get(app).map_or_else(String::new, |app| app.current.clone());
            let (was, is) = (current(before), current(&now));
            if was == is {
                return Ok(format!("{is} was current already"));
            }
            let order = api::Promote { release: was.clone(), from: Some(is.clone()), then: None, deadline: None, force: true };
            client.post::<api::Promoted>(&format!("/api/v1/apps/{}/promote", segment(app)), &order).await?;
            Ok(format!("{was} is current again, and {is} drains"))
        }
        Plan::Stage { app, release } => {
            let path = format!("/api/v1/apps/{}/releases/{}", segment(app), segment(release));
            client.post::<api::Done>(&format!("{path}/stop"), &api::Stop { force: true }).await?;
            client.delete::<api::Done>(&path).await?;
            Ok(format!("{app}/{release} is forgotten"))
        }
        Plan::Intent { .. } => {
            let now: api::Status = client.get("/api/v1/status").await?;
            let mut told = Vec::new();
            for (target, was) in intents(before) {
                if intents(&now).into_iter().any(|(name, is)| name == target && is != was) {
                    let order = api::IntentOrder { target: target.clone(), intent: was.clone(), force: true };
                    client.post::<api::IntentSet>("/api/v1/intent", &order).await?;
                    told.push(format!("{target}: {was}"));
                }
            }
            let now: api::Status = client.get("/api/v1/status").await?;
            let mut stays = Vec::new();
            for drain in now.drains.iter().filter(|drain| drain.verdict.is_none()) {
                match before.drains.iter().find(|was| was.id == drain.id) {
                    None => {
                        // Where the intent was taken back it is superseded already.
                        client.delete::<serde_json::Value>(&format!("/api/v1/drains/{}", segment(&drain.id))).await?;
                        told.push(format!("drain {} cancelled", drain.id));
                    }
                    Some(was) if was.deadline != drain.deadline || was.then != drain.then => {
                        let deadline = drain.deadline.as_deref().unwrap_or("none");
                        stays.push(format!("{} of {} has deadline {deadline}, then {}", drain.id, drain.target, drain.then));
                    }
                    Some(_) => {}
                }
            }
            if !stays.is_empty() {
                return Err(Failure::error(format!("{}; give the order again as it is to be", stays.join(", "))));
            }
            Ok(if told.is_empty() { "it was so before".to_owned() } else { told.join(", ") })
        }
        Plan::Final { .. } => Err(Failure::error("there is no way back; repeat the command for the other address when it can")),
        Plan::Reload { .. } | Plan::Other => Err(Failure::error("no way back is known")),
    }
}

/// Every backend with its intent.
fn intents(status: &api::Status) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (app, found) in status.apps.iter() {
        for (release, found) in found.releases.iter() {
            all.extend(found.backends.iter().map(|(name, backend)| (format!("{app}/{release}/{name}"), backend.intent.clone())));
        }
    }
    all
}
