//! What the new process does when the old one dies in the middle: before it was told to serve nothing, after that everything.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tidegate::model::time::Time;
use tidegate::serve::state::StateLock;
use tidegate::serve::upgrade::SOCKET_VARIABLE;
use tidegate::serve::upgrade::wire::{Line, Message, Offer, PROTOCOL, Word};

use crate::client::Browser;
use crate::process::{Process, Scratch, free_port, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, binary};

/// An old process that dies after so many steps: the greeting, the offer, all sessions, the word to serve.
fn dies_after(steps: usize) -> (Process, u16, Scratch) {
    let a1 = backend("v1", "a1");
    let scratch = Scratch::new("newcomer");
    let folder = scratch.path().display();
    let (port, admin) = (free_port(), free_port());
    let around = format!(
        "listeners: [{{address: \"127.0.0.1:{port}\"}}]\nadmin: {{address: \"127.0.0.1:{admin}\"}}\nstate: {{directory: {folder}/state}}\n"
    );
    scratch.write("tidegate.yaml", &(around + &Shop::new("cookie").release("v1", &[&a1]).yaml()));
    let lock = StateLock::take(&scratch.path().join("state"), "").expect("nobody has it");
    let listener = UnixListener::bind(scratch.path().join("socket")).expect("a socket");
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(scratch.path().join("tidegate.yaml")).env(SOCKET_VARIABLE, scratch.path().join("socket"));
    let process = Process::start("newcomer", command, &scratch.path().join("tidegate.log"));
    let mut line = Line::new(listener.accept().expect("it calls").0);
    line.patience(Some(SOON)).expect("a socket");
    if steps >= 1 {
        assert!(matches!(line.word().expect("it greets"), Word::Hello { protocol: PROTOCOL, .. }));
    }
    if steps >= 2 {
        let open = |port| std::net::TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let (clients, operators) = (open(port), open(admin));
        let offer = Offer {
            protocol: PROTOCOL,
            version: "0.0.9".to_owned(),
            directory: std::fs::canonicalize(scratch.path().join("state")).expect("it exists"),
            clock: Time(1_795_000_000_000),
            listeners: vec![format!("127.0.0.1:{port}")],
            admin: format!("127.0.0.1:{admin}"),
            ..Offer::default()
        };
        line.say_with(&Word::Offer(Box::new(offer)), &[clients.as_fd(), operators.as_fd()]).expect("it listens");
    }
    if steps >= 3 {
        line.say(&Word::Told).expect("it listens");
        assert_eq!(line.hear().expect("in time"), Some(Message::Word(Word::Ready)));
    }
    if steps >= 4 {
        line.say_with(&Word::Go, &[lock.as_fd()]).expect("it listens");
    }
    (process, port, scratch)
}

#[test]
fn before_it_is_told_to_serve_it_ends_with_the_old_process() {
    for steps in 0..=3 {
        let (mut process, _, scratch) = dies_after(steps);
        assert_eq!(process.wait(SOON).code(), Some(1), "{steps}");
        let log = std::fs::read_to_string(scratch.path().join("tidegate.log")).unwrap();
        assert!(log.contains("the process before"), "{steps}: {log}");
        let free = StateLock::take(&scratch.path().join("state"), "");
        assert!(free.is_ok(), "{steps}: whoever comes next can go on");
    }
}

#[test]
fn once_it_is_told_to_serve_it_serves_alone_if_need_be() {
    let (mut process, port, scratch) = dies_after(4);
    wait_for("it serves", SOON, || Browser::new(port).with_timeout(Duration::from_secs(5)).send(crate::client::Call::get("/")).is_ok());
    process.assert_running();
    let begun = || std::fs::read_to_string(scratch.path().join("tidegate.log")).unwrap().contains("listening on");
    wait_for("it listens to signals", SOON, begun);
    StateLock::take(&scratch.path().join("state"), "").expect_err("it is the owner");
    process.signal(Signal::TERM);
    assert!(process.wait(SOON).success());
}
