//! A real Tomcat 10 from Debian's packages, in a private `CATALINA_BASE`, with a small shop made of JSPs.
//!
//! Java is started directly, not by `catalina.sh`: so the process id is Tomcat's own and SIGSTOP stops Tomcat.
//! Sessions are not saved on a stop (`pathname=""`): a restart forgets them, as a crash does.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, wait_for_some};

const HOME: &str = "/usr/share/tomcat10";
const MANAGER: &str = "/usr/share/tomcat10-admin/manager";
/// The manager's user and password.
pub const MANAGER_USER: &str = "test:test";
/// The same as a header.
const CREDENTIALS: &str = "Basic dGVzdDp0ZXN0";
/// A cold Java on a busy machine with two cores.
const START: Duration = Duration::from_secs(90);

/// What to start.
#[derive(Debug, Clone)]
pub struct TomcatSpec {
    /// Shown on every page.
    pub release: String,
    /// Shown on every page, and the jvmRoute.
    pub backend: String,
    /// In minutes, as web.xml counts.
    pub session_timeout: u32,
    /// Where the shop is deployed, each time with sessions of its own.
    pub contexts: Vec<Context>,
    /// After so many requests a connection is closed; -1 for never.
    pub keep_alive_requests: i32,
    /// An idle connection is closed after this time, to the second.
    pub keep_alive: Duration,
}

/// One deployment of the shop.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Its path: `/shop`.
    pub path: &'static str,
    /// Does the session id travel in a cookie? Otherwise (`<Context cookies="false">`) as `;jsessionid=` in links.
    pub cookies: bool,
}

impl TomcatSpec {
    /// Sessions that live for 30 minutes; the shop at [`SHOP`] with cookies and at [`COOKIELESS`] without.
    pub fn new(release: &str, backend: &str) -> TomcatSpec {
        TomcatSpec {
            release: release.to_owned(),
            backend: backend.to_owned(),
            session_timeout: 30,
            contexts: vec![Context { path: SHOP, cookies: true }, Context { path: COOKIELESS, cookies: false }],
            keep_alive_requests: -1,
            keep_alive: Duration::from_secs(60),
        }
    }

    /// Closes kept connections after so many requests, and when they have been idle for so long.
    pub fn with_keep_alive(mut self, requests: i32, idle: Duration) -> TomcatSpec {
        (self.keep_alive_requests, self.keep_alive) = (requests, idle);
        self
    }

    /// Sessions that live for that many minutes.
    pub fn with_session_timeout(mut self, minutes: u32) -> TomcatSpec {
        self.session_timeout = minutes;
        self
    }

    /// Deploys the shop there instead.
    pub fn with_contexts(mut self, contexts: &[Context]) -> TomcatSpec {
        self.contexts = contexts.to_vec();
        self
    }
}

/// A running Tomcat, killed on drop.
pub struct Tomcat {
    spec: TomcatSpec,
    port: u16,
    process: Process, // before the scratch directory: it must end first
    scratch: Scratch,
}

/// Where the shop is that hands out cookies.
pub const SHOP: &str = "/shop";
/// Where the shop is that does not.
pub const COOKIELESS: &str = "/plain";

impl Tomcat {
    /// Starts it and waits until every JSP is compiled. No session is left over from that.
    pub fn start(spec: TomcatSpec) -> Tomcat {
        Tomcat::start_all([spec]).remove(0)
    }

    /// Starts several at once: Java's start is the slow part.
    pub fn start_all(specs: impl IntoIterator<Item = TomcatSpec>) -> Vec<Tomcat> {
        require_file("/usr/bin/java", "tomcat10");
        require_file(&format!("{HOME}/bin/bootstrap.jar"), "tomcat10");
        require_file(MANAGER, "tomcat10-admin");
        let mut started: Vec<Tomcat> = specs.into_iter().map(Tomcat::launch).collect();
        for tomcat in &mut started {
            tomcat.warm_up();
        }
        started
    }

    fn launch(spec: TomcatSpec) -> Tomcat {
        let port = free_port();
        let scratch = Scratch::new(&format!("tomcat-{}", spec.backend));
        write_base(&scratch, &spec, port);
        let process = start_java(&scratch, &spec.backend);
        Tomcat { spec, port, scratch, process }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`, as the configuration wants it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts a static file into the shop.
    pub fn touch(&self, file: &str) {
        self.scratch.write(&format!("shop/{file}"), "alive\n");
    }

    /// Takes a static file of the shop away.
    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.scratch.path().join("shop").join(file)).expect("it was there");
    }

    /// The sessions that its own manager counts in the shop at `context`.
    pub fn manager_sessions(&self, context: &str) -> usize {
        let list = self.manager("/manager/text/list");
        list.lines()
            .filter_map(|line| line.strip_prefix(&format!("{context}:running:")))
            .filter_map(|rest| rest.split(':').next()?.parse().ok())
            .next()
            .unwrap_or_else(|| panic!("the manager lists no {context}:\n{list}"))
    }

    /// The ids of all sessions at `context` that Tomcat would still honour.
    pub fn session_ids(&self, context: &str) -> Vec<String> {
        let bean = manager_bean(context);
        // By its own rule, but now: its own thread looks once a second only.
        self.manager(&format!("/manager/jmxproxy/?invoke={bean}&op=backgroundProcess"));
        let list = self.manager(&format!("/manager/jmxproxy/?invoke={bean}&op=listSessionIds"));
        let (_, ids) = list.split_once("returned:").unwrap_or_else(|| panic!("the manager lists no ids:\n{list}"));
        ids.split_whitespace().map(str::to_owned).collect()
    }

    /// How many sessions it has made at `context` since it was started.
    pub fn sessions_made(&self, context: &str) -> usize {
        let answer = self.manager(&format!("/manager/jmxproxy/?get={}&att=sessionCounter", manager_bean(context)));
        let count = answer.trim().rsplit(" = ").next().and_then(|count| count.parse().ok());
        count.unwrap_or_else(|| panic!("the manager knows no sessionCounter:\n{answer}"))
    }

    fn manager(&self, target: &str) -> String {
        let call = Call::get(target).field("Authorization", CREDENTIALS);
        let answer = Browser::new(self.port).with_host("localhost").send_or_panic(call);
        answer.expect_status(200).text()
    }

    /// Stops the process in its tracks: the kernel still accepts, nobody answers.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Ends it at once; the port refuses connections.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// A new process with an empty memory on the same port and under the same name.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = start_java(&self.scratch, &self.spec.backend);
        self.warm_up();
    }

    /// Waits for the connector, then has each page compiled, and ends the sessions that this made.
    fn warm_up(&mut self) {
        for context in self.spec.contexts.clone() {
            let context = context.path;
            let mut browser = Browser::new(self.port).with_timeout(START);
            let health = Call::get(&format!("{context}/health.jsp"));
            let process = &mut self.process;
            wait_for_some("Tomcat serves its health page", START, || {
                process.assert_running();
                browser.send(health.clone()).ok().filter(|answer| answer.status == 200)
            });
            let link = browser.get(&format!("{context}/link.jsp")).expect_status(200);
            let linked = link.text().trim().to_owned();
            let (_, id) = linked.split_once(";jsessionid=").unwrap_or((&linked, ""));
            let id = if id.is_empty() { String::new() } else { format!(";jsessionid={id}") };
            for page in ["index.jsp", "login.jsp", "index.jsp"] {
                browser.send_or_panic(Call::get(&format!("{context}/{page}{id}")));
            }
            let logout = format!("{context}/logout.jsp{id}");
            browser.get(&logout).expect_status(200);
            let expire = format!("/manager/text/expire?path={context}&idle=0");
            self.manager(&expire);
            assert_eq!(self.manager_sessions(context), 0, "{context} after the warm-up");
        }
    }
}

/// The name under which Tomcat shows the sessions of `context` to JMX.
fn manager_bean(context: &str) -> String {
    format!("Catalina:type=Manager,host=localhost,context={context}")
}

fn start_java(scratch: &Scratch, backend: &str) -> Process {
    let base = scratch.path().display();
    let mut java = Command::new("/usr/bin/java");
    java.args(["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg("-Djava.security.egd=file:/dev/urandom")
        .arg(format!("-Dcatalina.home={HOME}"))
        .arg(format!("-Dcatalina.base={base}"))
        .arg(format!("-Djava.io.tmpdir={base}/temp"))
        .args(["-cp", &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar")])
        .args(["org.apache.catalina.startup.Bootstrap", "start"])
        .current_dir(scratch.path());
    Process::start(&format!("tomcat {backend}"), java, &scratch.path().join("tomcat.log"))
}

fn write_base(scratch: &Scratch, spec: &TomcatSpec, port: u16) {
    for folder in ["temp", "work", "logs", "webapps"] {
        scratch.write(&format!("{folder}/.keep"), "");
    }
    let web_xml = std::fs::read_to_string(format!("{HOME}/etc/web.xml"));
    scratch.write("conf/web.xml", &web_xml.expect("Debian's web.xml is readable"));
    scratch.write("conf/server.xml", &server_xml(scratch, spec, port));
    scratch.write(
        "conf/tomcat-users.xml",
        r#"<tomcat-users>
  <role rolename="manager-script"/>
  <role rolename="manager-jmx"/>
  <user username="test" password="test" roles="manager-script,manager-jmx"/>
</tomcat-users>
"#,
    );
    write_shop(scratch, spec);
}

fn server_xml(scratch: &Scratch, spec: &TomcatSpec, port: u16) -> String {
    let (backend, requests, idle) = (&spec.backend, spec.keep_alive_requests, spec.keep_alive.as_millis());
    let shop = scratch.path().join("shop");
    let shop = shop.display();
    let context = |context: &Context| {
        let Context { path, cookies } = context;
        format!(
            r#"        <Context path="{path}" docBase="{shop}" cookies="{cookies}">
          <Manager pathname="" processExpiresFrequency="1"/>
          <JarScanner scanClassPath="false"><JarScanFilter defaultTldScan="false" defaultPluggabilityScan="false"/></JarScanner>
        </Context>
"#
        )
    };
    let contexts: String = spec.contexts.iter().map(context).collect();
    // No jar holds anything for the shop: looking through them would take most of the start.
    // `backgroundProcessorDelay` and `processExpiresFrequency`: the manager's count is at most a second old.
    format!(
        r#"<Server port="-1">
  <Service name="Catalina">
    <Connector port="{port}" address="127.0.0.1" protocol="HTTP/1.1" maxThreads="64"
               maxKeepAliveRequests="{requests}" keepAliveTimeout="{idle}"/>
    <Engine name="Catalina" defaultHost="localhost" jvmRoute="{backend}" backgroundProcessorDelay="1">
      <Realm className="org.apache.catalina.realm.MemoryRealm"/>
      <Host name="localhost" appBase="webapps" autoDeploy="false">
        <Context path="/manager" docBase="{MANAGER}" privileged="true"/>
{contexts}      </Host>
    </Engine>
  </Service>
</Server>
"#
    )
}

fn write_shop(scratch: &Scratch, spec: &TomcatSpec) {
    let TomcatSpec { release, backend, session_timeout, .. } = spec;
    scratch.write(
        "shop/WEB-INF/web.xml",
        &format!(
            r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true">
  <session-config><session-timeout>{session_timeout}</session-timeout></session-config>
</web-app>
"#
        ),
    );
    let count = r#"<%
  Integer n = (Integer) session.getAttribute("n");
  n = n == null ? 1 : n + 1;
  session.setAttribute("n", n);
%>"#;
    let line = format!("release={release} backend={backend} id=<%= session.getId() %> counter=<%= session.getAttribute(\"n\") %>\n");
    let page = |header: &str, code: &str, text: &str| {
        format!("<%@ page contentType=\"text/plain\" trimDirectiveWhitespaces=\"true\" {header}%>{code}{text}")
    };
    scratch.write("shop/index.jsp", &page("", count, &line));
    let rename = format!("<% request.changeSessionId(); %>{count}");
    scratch.write("shop/login.jsp", &page("", &rename, &line));
    let end = r#"<%
  HttpSession old = request.getSession(false);
  if (old != null) old.invalidate();
  Cookie cookie = new Cookie("JSESSIONID", "");
  cookie.setPath(request.getContextPath());
  cookie.setMaxAge(0);
  response.addCookie(cookie);
%>"#;
    scratch.write("shop/logout.jsp", &page("session=\"false\" ", end, "bye\n"));
    let link = "<%= response.encodeURL(\"index.jsp\") %>\n";
    scratch.write("shop/link.jsp", &page("", "", link));
    scratch.write("shop/health.jsp", &page("session=\"false\" ", "", "ok\n"));
    scratch.write("shop/socket.jsp", SOCKET);
}

/// A WebSocket that echoes text. A page and no annotated class: nothing is left to compile before Tomcat starts.
const SOCKET: &str = r#"<%@ page contentType="text/plain" session="false" trimDirectiveWhitespaces="true"
    import="jakarta.websocket.*, jakarta.websocket.server.*, java.io.IOException, java.util.Collections" %><%!
  public static class Echo extends Endpoint {
    public void onOpen(Session socket, EndpointConfig config) {
      socket.addMessageHandler(new MessageHandler.Whole<String>() {
        public void onMessage(String text) {
          try { socket.getBasicRemote().sendText(text); } catch (IOException gone) { }
        }
      });
    }
  }
%><%
  ServerContainer sockets = (ServerContainer) application.getAttribute(ServerContainer.class.getName());
  ServerEndpointConfig echo = ServerEndpointConfig.Builder.create(Echo.class, "/socket.jsp").build();
  sockets.upgradeHttpToWebSocket(request, response, echo, Collections.emptyMap());
%>"#;
