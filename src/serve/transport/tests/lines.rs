//! Connections to backends: which are kept, when they are used again, and when they end. The backend here answers with the very
//! octets that it is asked for.

use super::super::line::Lines;
use super::*;

/// What the client's path stands for: `/NAME` is answered with the octets of that name.
const ANSWERS: [(&str, &str); 16] = [
    ("/counted", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    ("/empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("/zeros", "HTTP/1.1 200 OK\r\nContent-Length: 00\r\n\r\n"),
    ("/twice", "HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n"),
    ("/nothing", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("/unchanged", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
    ("/hinted", "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("/closing", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
    ("/old", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    // More than was announced: what follows might be taken for the answer to the next request.
    ("/beyond", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
    ("/beyond-chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("/beyond-nothing", "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
    ("/offered", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=20, max=9\r\nContent-Length: 2\r\n\r\nok"),
    ("/brief", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok"),
    ("/endless", "HTTP/1.1 200 OK\r\n\r\nok"),
];

/// A connection that the backend has accepted, by its number, and what it is told to do there.
type Order = (usize, &'static str);

struct Scene {
    stage: Stage,
    accepted: Arc<AtomicUsize>,
    /// To all connections: octets for the connection of that number, or its end if there are none.
    orders: tokio::sync::broadcast::Sender<Order>,
    /// Exchanges that are to wait.
    held: usize,
}

impl Scene {
    async fn new(lines: Arc<Lines>, times: LineTimes) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend { address: listener.local_addr().unwrap(), held: Arc::new(Semaphore::new(0)) };
        let (accepted, (orders, _)) = (Arc::<AtomicUsize>::default(), tokio::sync::broadcast::channel(16));
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (counter, sender) = (accepted.clone(), orders.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let (orders, arrived) = (sender.subscribe(), arrived.clone());
                tokio::spawn(async move { drop(answer(tcp, number, orders, arrived).await) });
            }
        });
        Scene { stage: Stage::before(backend, arrivals, TransportOptions::default(), None, (lines, times)), accepted, orders, held: 0 }
    }

    fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// An exchange that waits until the backend is told what to answer.
    async fn begin(&mut self) -> TcpStream {
        let mut client = self.stage.connect().await;
        client.write_all(b"GET /told HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        self.stage.arrived("/told").await;
        self.held = 1;
        client
    }

    /// Asks on a connection of its own, so that only the backend's connection can be the same one.
    async fn ask(&mut self, method: &str, path: &str) -> String {
        let mut client = self.stage.connect().await;
        client.write_all(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read_to_end(&mut client).await;
        until("the exchange has ended", || self.stage.exchanges.load(Ordering::SeqCst) == self.held).await;
        answer
    }
}

async fn answer(
    mut tcp: TcpStream,
    number: usize,
    mut orders: tokio::sync::broadcast::Receiver<Order>,
    arrived: mpsc::UnboundedSender<String>,
) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    loop {
        let head = tokio::select! {
            head = read_head(&mut tcp) => head?,
            Ok((of, octets)) = orders.recv() => {
                if of == number && octets.is_empty() {
                    return Ok(());
                }
                if of == number {
                    tcp.write_all(octets.as_bytes()).await?;
                }
                continue;
            }
        };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        drop(arrived.send(path.clone()));
        match ANSWERS.iter().find(|(name, _)| *name == path) {
            Some((_, octets)) => tcp.write_all(octets.as_bytes()).await?,
            // Two octets, a pause, two more; again and again.
            None if path == "/slow" => {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").await?;
                for _ in 0..4 {
                    tokio::time::sleep(Duration::from_millis(400)).await;
                    tcp.write_all(b"ok").await?;
                }
            }
            // The last octet comes alone: Pingora may then ask for a single one.
            None if path == "/late" => {
                tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
                tcp.write_all(b"!").await?;
            }
            None if path == "/number" => {
                tcp.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").as_bytes()).await?;
            }
            None if path == "/told" => {
                let octets = loop {
                    match orders.recv().await.unwrap() {
                        (of, octets) if of == number => break octets,
                        _ => {}
                    }
                };
                tcp.write_all(octets.as_bytes()).await?;
            }
            None => std::future::pending().await,
        }
        if path == "/endless" {
            return Ok(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_exactly_when_its_answer_was_whole_and_nothing_followed() {
    let check = async |method: &str, path: &str, kept: bool| {
        let mut scene = Scene::new(Lines::new(1), TIMES).await;
        let answer = scene.ask(method, path).await;
        assert!(answer.starts_with("HTTP/1."), "{method} {path}: {answer:?}");
        assert!(!answer.contains("forged"), "{method} {path}: {answer:?}");
        assert_eq!(scene.stage.lines.kept(), usize::from(kept), "{method} {path}");
        let next = scene.ask("GET", "/counted").await;
        assert!(next.starts_with("HTTP/1.1 200 ") && next.ends_with("\r\n\r\nok"), "after {method} {path}: {next:?}");
        assert_eq!(scene.connections(), if kept { 1 } else { 2 }, "{method} {path}");
    };
    for path in ["/counted", "/chunked", "/empty", "/zeros", "/twice", "/nothing", "/unchanged", "/hinted", "/offered"] {
        check("GET", path, true).await;
    }
    check("HEAD", "/empty", true).await;
    for path in ["/closing", "/old", "/beyond", "/beyond-chunks", "/beyond-nothing", "/endless"] {
        check("GET", path, false).await;
    }
    let mut scene = Scene::new(Lines::new(1), TIMES).await;
    for _ in 0..2 {
        let answer = scene.ask("GET", "/late").await;
        assert!(answer.ends_with("\r\n\r\nok!"), "{answer:?}");
    }
    assert_eq!((scene.connections(), scene.stage.lines.kept()), (1, 1));
    // A backend that sends a body after all.
    check("HEAD", "/counted", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_connection_given_back_is_the_first_one_used() {
    let mut scene = Scene::new(Lines::new(1), TIMES).await;
    let mut client = scene.begin().await;
    assert!(scene.ask("GET", "/number").await.ends_with("\r\n\r\n1"), "the first is under way");
    scene.orders.send((0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).unwrap();
    assert_eq!(read_answer(&mut client).await.body, "ok");
    scene.held = 0;
    until("both are kept", || scene.stage.lines.kept() == 2).await;
    for _ in 0..2 {
        assert!(scene.ask("GET", "/number").await.ends_with("\r\n\r\n0"));
    }
    assert_eq!((scene.connections(), scene.stage.lines.kept()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_that_ends_or_speaks_unasked_is_not_used_again() {
    for octets in ["", "\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"] {
        let mut scene = Scene::new(Lines::new(1), TIMES).await;
        scene.ask("GET", "/counted").await;
        scene.orders.send((0, octets)).unwrap();
        tokio::spawn(Arc::clone(&scene.stage.lines).sweep());
        until("the sweep has closed it", || scene.stage.lines.kept() == 0).await;
        let answer = scene.ask("GET", "/counted").await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer:?}");
        assert_eq!(scene.connections(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_idled_for_too_long_is_closed() {
    let brief = LineTimes { idle: Duration::from_millis(1), ..TIMES };
    let mut scene = Scene::new(Lines::new(1), brief).await;
    scene.ask("GET", "/counted").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    scene.ask("GET", "/counted").await;
    assert_eq!(scene.connections(), 2, "too old before any sweep came by");
    tokio::spawn(Arc::clone(&scene.stage.lines).sweep());
    until("the sweep has closed the second", || scene.stage.lines.kept() == 0).await;

    let mut scene = Scene::new(Lines::new(1), TIMES).await;
    for _ in 0..3 {
        scene.ask("GET", "/brief").await;
    }
    assert_eq!(scene.connections(), 3, "the backend keeps them for too short a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_too_many_the_oldest_is_closed() {
    let mut scene = Scene::new(Lines::with_most(1), TIMES).await;
    let mut client = scene.begin().await;
    assert!(scene.ask("GET", "/number").await.ends_with("\r\n\r\n1"));
    assert_eq!(scene.stage.lines.kept(), 1);
    scene.orders.send((0, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).unwrap();
    assert_eq!(read_answer(&mut client).await.body, "ok");
    scene.held = 0;
    until("the exchange has ended", || scene.stage.exchanges.load(Ordering::SeqCst) == 0).await;
    for _ in 0..2 {
        assert!(scene.ask("GET", "/number").await.ends_with("\r\n\r\n0"), "the one given back last");
    }
    assert_eq!((scene.connections(), scene.stage.lines.kept()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_is_overdue_after_its_silence_and_not_after_the_sum_of_its_pauses() {
    let times = LineTimes { read: Duration::from_secs(1), ..TIMES };
    let mut scene = Scene::new(Lines::new(1), times).await;
    for _ in 0..2 {
        // The second time over the connection whose timer was set by the first.
        let answer = scene.ask("GET", "/slow").await;
        assert!(answer.ends_with("okokokok"), "{answer:?}");
    }
    assert_eq!(scene.connections(), 1);
    let began = std::time::Instant::now();
    let answer = scene.ask("GET", "/never").await;
    assert!(began.elapsed() >= times.read, "{:?}", began.elapsed());
    assert!(answer.starts_with("HTTP/1.1 502 "), "what the glue makes of it is its own: {answer:?}");
    let line = scene.stage.line.lock().unwrap().clone().unwrap();
    assert!(line.is_overdue() && line.was_kept());
    assert_eq!(scene.stage.lines.kept(), 0);
}
