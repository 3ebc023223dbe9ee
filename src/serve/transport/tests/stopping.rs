//! Stopping: nobody who is being served is cut, nobody who is idle is waited for.

use std::io::ErrorKind;
use std::os::fd::AsFd;

use tokio::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_up_a_stop() {
    let stage = Stage::new().await;
    let mut silent = stage.connect().await;
    let mut idle = stage.connect().await;
    assert_eq!(get(&mut idle, "/").await.status(), "200");
    until("both are accepted", || stage.stop.connections() == 2).await;
    let begin = Instant::now();
    assert_eq!(stage.run_stop(PATIENCE).await, Stopped::Done);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut silent).await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_flight_is_answered_and_told_to_close() {
    let mut stage = Stage::new().await;
    let mut client = stage.connect().await;
    client.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stage.arrived("/held").await;
    assert_eq!(stage.exchanges.load(Ordering::SeqCst), 1);
    let (backend, address) = (stage.backend.clone(), stage.address);
    let stop = stage.stop.clone();
    let stopping = tokio::spawn(async move { stage.run_stop(PATIENCE).await });
    // New clients are refused while it is still under way.
    until("draining", || stop.draining()).await;
    let refused = async {
        loop {
            match TcpStream::connect(address).await {
                Ok(mut late) => drop(read_to_end(&mut late).await),
                Err(e) => return e.kind(),
            }
        }
    };
    assert_eq!(refused.await, ErrorKind::ConnectionRefused);
    assert!(!stopping.is_finished());
    backend.release();
    let answer = read_answer(&mut client).await;
    assert!(answer.closes() && answer.body.starts_with("GET /held"), "{answer:?}");
    assert_eq!(stopping.await.unwrap(), Stopped::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_the_linger_an_idle_connection_gets_one_more_answer() {
    let stage = Stage::new().await;
    let mut client = stage.connect().await;
    assert!(!get(&mut client, "/").await.closes());
    let stop = stage.stop.clone();
    let (stopped, answer) = tokio::join!(stage.run_stop(PATIENCE), async {
        until("draining", || stop.draining()).await;
        get(&mut client, "/last").await
    });
    assert!(answer.closes() && answer.body.starts_with("GET /last"), "{answer:?}");
    assert_eq!(stopped, Stopped::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_in_the_backlog_are_served_before_the_socket_closes() {
    let options = TransportOptions { max_connections: Some(1), ..TransportOptions::default() };
    let mut stage = Stage::with(options, None).await;
    let mut first = stage.connect().await;
    first.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stage.arrived("/held").await;
    // The limit keeps this one in the backlog; the kernel has completed its connection.
    let mut waiting = stage.connect().await;
    waiting.write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let backend = stage.backend.clone();
    let stopping = tokio::spawn(async move { stage.run_stop(PATIENCE).await });
    let answer = read_answer(&mut waiting).await;
    assert!(answer.closes() && answer.body.starts_with("GET /late"), "{answer:?}");
    backend.release();
    assert_eq!(read_answer(&mut first).await.status(), "200");
    assert_eq!(stopping.await.unwrap(), Stopped::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_tunnel_works_until_the_grace_period_is_over() {
    let stage = Stage::new().await;
    let mut tunnel = tunnels::open(&stage, "/").await.unwrap();
    let grace_period = Duration::from_secs(1);
    let begin = Instant::now();
    let (stopped, ()) = tokio::join!(stage.run_stop(grace_period), async {
        while begin.elapsed() < grace_period * 4 / 5 {
            tunnels::echo_once(&mut tunnel).await.unwrap();
        }
    });
    let left = Stopped::Cut { connections: 1, exchanges: 1 };
    assert_eq!(stopped, left);
    assert!(begin.elapsed() >= grace_period);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_ends_ends_the_stop() {
    let stage = Stage::new().await;
    let tunnel = tunnels::open(&stage, "/").await.unwrap();
    let stop = stage.stop.clone();
    let (stopped, ()) = tokio::join!(stage.run_stop(PATIENCE), async {
        until("draining", || stop.draining()).await;
        drop(tunnel);
    });
    assert_eq!(stopped, Stopped::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_can_be_handed_over_until_accepting_ends() {
    let stage = Stage::new().await;
    let socket = stage.handle.socket().unwrap();
    let copy = socket.as_fd().try_clone_to_owned().unwrap().into();
    drop(socket);
    let spec = ListenerSpec { address: stage.handle.asked_address(), tls: None };
    let adopted = BoundListener::adopt(&spec, copy).unwrap();
    assert_eq!(adopted.address(), stage.address);
    assert_eq!(stage.run_stop(PATIENCE).await, Stopped::Done);
    assert!(stage.handle.socket().is_none());
    // The successor's copy still listens: nobody is refused.
    let _waiting = stage.connect().await;
    drop(adopted);
    assert!(TcpStream::connect(stage.address).await.is_err());
}
