//! The commands that talk to no running process: run and check. (The third one, demo, is [`crate::demo`].)

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use super::Failure;
use super::args::When;
use crate::model::time::Time;
use crate::serve::reload::{AppliedFile, Reloader};
use crate::serve::supervisor::{self, News};
use crate::serve::transport::Stopped;
use crate::serve::upgrade::{Program, Succession};
use crate::serve::{Origin, Server};

/// Another process serves.
const REPLACED: &str = "replaced";

/// Runs the proxy in the foreground until it is told to stop.
pub fn run(file: &Path, force: bool, color: When) -> Result<u8, Failure> {
    // Pingora's own lines repeat what we log with the backend's name; RUST_LOG overrides.
    let filter = env_logger::Env::default().default_filter_or("info,pingora_core=error,pingora_proxy=error");
    let style = match color {
        When::Auto => env_logger::WriteStyle::Auto,
        When::Always => env_logger::WriteStyle::Always,
        When::Never => env_logger::WriteStyle::Never,
    };
    env_logger::Builder::from_env(filter).write_style(style).format_target(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let no_signals = |error: io::Error| Failure::error(format!("cannot listen for signals: {error}"));
    let signals = runtime.map_err(no_signals)?;
    let orders = {
        let _within = signals.enter();
        Orders::listen().map_err(no_signals)?
    };
    let before = Succession::from_environment();
    let mut succession = before.map_err(|error| Failure::error(format!("cannot take over from the process before: {error}")))?;
    let source = crate::config::read_source(file).map_err(|problems| {
        if let Some(before) = &mut succession {
            before.refuse(&problems.to_string());
        }
        Failure::error(problems.to_string())
    })?;
    let program = Program::current().map_err(|error| log::warn!("no upgrade in place: {error}")).ok();
    let takes_over = succession.is_some();
    // Said once, of the edit at that time: the arguments stay the same with every upgrade.
    let force = force && !takes_over;
    let origin = Origin { succession, program, force };
    let server = Server::start_from(AppliedFile::new(Some(file), source, Time(0)), origin)
        .map_err(|error| Failure::error(format!("cannot start: {error}")))?;
    for address in server.addresses() {
        log::info!("listening on {address}");
    }
    if !takes_over {
        // Of one that takes over, the process before tells.
        supervisor::tell(News::Ready);
    }
    let asked = signals.block_on(until_asked(&server, orders)).map_err(no_signals)?;
    let lame_duck = server.control().reloads.applied().config.server.lame_duck;
    if asked == REPLACED || lame_duck.is_zero() {
        log::info!("{asked}: no new connections; exchanges under way may finish");
    } else {
        log::info!("{asked}: not ready any more; accepting for another {lame_duck:?}, then exchanges under way may finish");
    }
    if asked != REPLACED {
        supervisor::tell(News::Stopping);
    }
    // Whoever asks again means now. Of a process that was replaced nobody has asked anything yet.
    std::thread::spawn(move || {
        if asked == REPLACED && signals.block_on(again()).is_ok() {
            log::info!("asked to stop: another process serves, and this one ends with its last exchange");
        }
        if signals.block_on(again()).is_ok() {
            log::warn!("asked again: stopping at once");
            std::process::exit(1);
        }
    });
    match server.stop() {
        Stopped::Done => log::info!("stopped; nothing was cut"),
        Stopped::Cut { connections, exchanges } => {
            log::warn!("grace_period is over: {exchanges} exchanges on {connections} connections were cut");
        }
    }
    Ok(0)
}

/// Signals that are orders to a process that serves. Heard from the very beginning: by default they would end it. Those that mean
/// stop do so by themselves until it serves.
struct Orders {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Orders {
    fn listen() -> io::Result<Orders> {
        Ok(Orders {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }
}

/// Handles signals until one of them means stop; its name.
async fn until_asked(server: &Server, mut orders: Orders) -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok("SIGTERM"),
            _ = quit.recv() => return Ok("SIGQUIT"),
            _ = interrupt.recv() => return Ok("SIGINT"),
            _ = orders.user1.recv() => { server.reopen_logs(); log::info!("SIGUSR1: log files reopened"); }
            // On a thread of its own, since it reads files: whoever wants to stop meanwhile is heard.
            _ = orders.hangup.recv() => { let reloader = Arc::clone(server.reloader()); drop(spawn_blocking(move || reload(&reloader))); }
            _ = orders.user2.recv() => drop(spawn_blocking(server.upgrade())),
            () = server.replaced() => return Ok(REPLACED),
        }
    }
}

fn reload(reloader: &Reloader) {
    supervisor::tell(News::Reloading);
    reloader.reload_and_log("SIGHUP");
    supervisor::tell(News::Ready);
}

async fn again() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = quit.recv() => {} }
    Ok(())
}

/// Reports every problem of a configuration file.
pub fn check(config: &Path, json: bool) -> Result<u8, Failure> {
    let checked = crate::config::load(config);
    if json {
        let problems = checked.as_ref().err().cloned().unwrap_or_default();
        println!("{}", serde_json::json!({ "problems": problems }));
        return Ok(u8::from(checked.is_err()));
    }
    let found = checked.map_err(|problems| Failure::error(problems.to_string()))?;
    let releases: usize = found.apps.iter().map(|app| app.releases.len()).sum();
    println!("{}: fine ({} apps, {releases} releases)", config.display(), found.apps.len());
    Ok(0)
}
