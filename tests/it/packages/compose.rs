//! Image and compose file: what can be known of them without a container engine.
//!
//! Both are checked by their own tools, everything they copy or mount is there, and what they start is started here as they say
//! it: tidegate with that configuration, the shop on real Tomcats, and the deploy that the compose file tells. The images were not built.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_yaml::Value;

use super::{checker, project, read, succeeds};
use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, wait_for};
use crate::tidegate::Tidegate;

const COMPOSE: &str = "deploy/compose.yaml";
const CONFIG: &str = "deploy/compose/tidegate.yaml";
const TOMCAT: &str = "/usr/share/tomcat10";

#[test]
fn the_tools_find_nothing_wrong_with_the_image_and_the_compose_file() {
    for dockerfile in ["deploy/Dockerfile", "deploy/sample/Dockerfile"] {
        assert_eq!(succeeds(checker("hadolint").arg(project(dockerfile))), "");
    }
    succeeds(checker("check-jsonschema").args(["--builtin-schema", "vendor.compose-spec"]).arg(project(COMPOSE)));
}

#[test]
fn all_that_is_copied_and_mounted_is_there_and_all_images_are_pinned() {
    let dockerfile = read("deploy/Dockerfile");
    let mut images: Vec<String> = Vec::new();
    for line in dockerfile.lines().filter(|line| line.starts_with("ARG ")) {
        images.extend(line.split_once('=').map(|(_, image)| image.to_owned()));
    }
    let compose = parsed(COMPOSE);
    let mut folders = 0;
    for (name, service) in compose["services"].as_mapping().expect("services") {
        let name = name.as_str().expect("a name");
        // The alias of shop-v2 is merged by compose, not by this parser.
        let service = if service.get("<<").is_some() { &service["<<"] } else { service };
        match service["image"].as_str() {
            Some(image) => images.push(image.to_owned()),
            None => {
                let build = &service["build"];
                let (context, file) = (build["context"].as_str().expect("a context"), build["dockerfile"].as_str().expect("a file"));
                assert!(project("deploy").join(context).join(file).exists(), "{name}");
            }
        }
        for volume in service["volumes"].as_sequence().into_iter().flatten() {
            let (source, rest) = volume.as_str().and_then(|volume| volume.split_once(':')).expect("SOURCE:TARGET");
            match source.strip_prefix("./") {
                Some(path) => {
                    folders += 1;
                    assert!(project("deploy").join(path).exists(), "{name}: {source}");
                    assert!(rest.ends_with(":ro"), "{name}: {source} may be written to");
                }
                None => assert!(compose["volumes"].get(source).is_some(), "{name}: no volume {source}"),
            }
        }
    }
    assert_eq!(folders, 8);
    assert_eq!(images.len(), 6, "{images:?}");
    for image in images {
        let tag = image.rsplit_once(':').map(|(_, tag)| tag.to_owned());
        assert!(tag.is_some_and(|tag| tag.contains('.') && tag != "latest"), "{image}");
    }
    let copied = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).collect::<Vec<_>>();
    assert_eq!(copied, [". .", "--from=build /build/target/release/tidegate /usr/bin/tidegate"]);
    // All that `COPY . .` must bring for the build.
    let left_out = read(".dockerignore");
    let left_out: BTreeSet<&str> = left_out.lines().collect();
    for needed in ["Cargo.toml", "Cargo.lock", ".cargo", "src", "README.md", "conf", "benches", "tests"] {
        assert!(project(needed).exists() && !left_out.contains(needed), "{needed}");
    }
}

#[test]
fn prometheus_and_grafana_find_what_they_ask_for() {
    let services = parsed(COMPOSE)["services"].clone();
    let target_of = |service: &str, source: &str| {
        let volumes = services[service]["volumes"].as_sequence().expect("volumes").iter().filter_map(Value::as_str);
        let found = volumes.filter_map(|volume| volume.strip_suffix(":ro")?.split_once(':')).find(|(from, _)| *from == source);
        found.unwrap_or_else(|| panic!("{service} has no {source}")).1.to_owned()
    };
    let prometheus = parsed("deploy/prometheus/prometheus.yml");
    let scrape = &prometheus["scrape_configs"][0];
    let asked = scrape["static_configs"][0]["targets"][0].as_str().and_then(|target| target.split_once(':')).expect("HOST:PORT");
    assert!(services.get(asked.0).is_some() && read(CONFIG).contains(&format!("address: 0.0.0.0:{}", asked.1)), "{asked:?}");
    assert_eq!(scrape["authorization"]["credentials_file"], services["prometheus"]["secrets"][0]["target"]);
    for rules in prometheus["rule_files"].as_sequence().expect("rules").iter().filter_map(Value::as_str) {
        assert_eq!(target_of("prometheus", &format!("./prometheus/{rules}")), format!("/etc/prometheus/{rules}"));
    }
    let config: Value = parsed(CONFIG);
    assert_eq!(config["admin"]["token_file"], services["tidegate"]["secrets"][0]["target"]);

    let source = &parsed("deploy/grafana/provisioning/datasources/prometheus.yaml")["datasources"][0];
    assert_eq!(source["url"], "http://prometheus:9090");
    let provider = &parsed("deploy/grafana/provisioning/dashboards/tidegate.yaml")["providers"][0];
    assert_eq!(provider["options"]["path"].as_str(), Some(&*target_of("grafana", "./grafana/dashboards")));
    assert_eq!(target_of("grafana", "./grafana/provisioning"), "/etc/grafana/provisioning");
}

#[test]
fn the_compose_file_is_a_deploy_to_try_out() {
    let [old, new] = [Shop::launch("v1", "a1"), Shop::launch("v2", "b1")];
    old.wait_until_ready();
    let tidegate = Tidegate::start(&here(CONFIG).replace("shop-v1:8080", &old.address()));
    let compose = read(COMPOSE);
    let told: Vec<&str> = compose.lines().filter_map(|line| line.split_once("exec tidegate tidegate ")).map(|(_, words)| words).collect();
    let [stage, promote] = told[..] else { panic!("{told:?}") };
    let mut user = tidegate.browser();
    for clicks in 1..=2 {
        let page = user.get("/shop/").expect_status(200);
        assert_eq!((page.word("release"), page.number("counter")), ("v1".to_owned(), clicks));
    }
    new.wait_until_ready();
    let stage = stage.replace("shop-v2:8080", &new.address());
    tidegate.cli(&stage.split(' ').collect::<Vec<_>>()).expect_code(0);
    let mut waits = tidegate.cli_in_background("promote", &promote.split(' ').collect::<Vec<_>>());
    tidegate.wait_for_state("shop", "v1", "draining");
    assert_eq!(tidegate.browser().get("/shop/").word("release"), "v2");
    assert_eq!(user.get("/shop/").number("counter"), 3, "v1 keeps its own");
    assert_eq!(waits.ended(), None);
    assert_eq!(user.get("/shop/logout.jsp").status, 302);
    assert_eq!(user.cookie("JSESSIONID"), None);
    assert_eq!(user.get("/shop/").word("release"), "v2", "after the logout");

    // The soft stop of the sample's own health page.
    assert_eq!(tidegate.browser().get("/shop/health/disable").status, 404, "not for those who come through the proxy");
    Browser::new(new.port).get("/shop/health/disable").expect_status(200);
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "draining");
    Browser::new(new.port).get("/shop/health/enable").expect_status(200);
    tidegate.wait_for_backend("shop", "v2", "b1", "health", "up");
}

#[test]
fn the_image_runs_and_is_probed_by_commands_that_exist() {
    let dockerfile = read("deploy/Dockerfile");
    let words = |directive: &str| -> Vec<String> {
        let line = dockerfile.lines().find(|line| line.starts_with(directive)).unwrap_or_else(|| panic!("no {directive}"));
        serde_json::from_str(&line[line.find('[').expect("a list")..]).expect("a list of words")
    };
    assert_eq!(words("ENTRYPOINT"), ["/usr/bin/tidegate"]);
    assert_eq!(words("CMD"), ["run", "-c", "/etc/tidegate/tidegate.yaml"]);
    let command: Vec<Value> = parsed(COMPOSE)["services"]["tidegate"]["command"].as_sequence().expect("words").clone();
    assert_eq!(command, ["run", "-c", "/config/tidegate.yaml"]);
    let probe = words("HEALTHCHECK");
    assert_eq!(probe[0], "/usr/bin/tidegate");
    let a1 = crate::shop::backend("v1", "a1");
    let tidegate = crate::shop::Shop::new("cookie").release("v1", &[&a1]).start();
    let probe: Vec<&str> = probe[1..].iter().map(String::as_str).collect();
    tidegate.cli(&probe).expect_code(0);
}

/// A configuration of a container without what is that container's own: addresses, places.
fn here(path: &str) -> String {
    assert_eq!(crate::tidegate::check(&read(path)).expect_code(0).stderr, "");
    let mut config = parsed(path);
    for key in ["listeners", "admin", "state"] {
        config.as_mapping_mut().and_then(|keys| keys.remove(key)).unwrap_or_else(|| panic!("{path}: no {key}"));
    }
    serde_yaml::to_string(&config).expect("what was read can be written")
}

fn parsed(path: &str) -> Value {
    serde_yaml::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The sample shop on a Tomcat, as its image runs it: a folder of web applications, and the environment.
struct Shop {
    port: u16,
    process: std::cell::RefCell<Process>,
    _scratch: Scratch,
}

impl Shop {
    fn launch(release: &str, backend: &str) -> Shop {
        require_file("/usr/bin/java", "default-jre-headless");
        require_file(&format!("{TOMCAT}/bin/bootstrap.jar"), "tomcat10");
        let (scratch, port) = (Scratch::new(backend), free_port());
        for folder in ["temp/.keep", "logs/.keep", "webapps/.keep"] {
            scratch.write(folder, "");
        }
        std::os::unix::fs::symlink(project("deploy/sample/shop"), scratch.path().join("webapps/shop")).expect("a link");
        let web_xml = std::fs::read_to_string(format!("{TOMCAT}/etc/web.xml")).expect("Debian's web.xml");
        scratch.write("conf/web.xml", &web_xml);
        scratch.write("conf/server.xml", &SERVER.replace("@port", &port.to_string()));
        let base = scratch.path().display();
        let mut java = Command::new("/usr/bin/java");
        java.args(["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg(format!("-Dcatalina.home={TOMCAT}"))
            .arg(format!("-Dcatalina.base={base}"))
            .arg(format!("-Djava.io.tmpdir={base}/temp"))
            .args(["-cp", &format!("{TOMCAT}/bin/bootstrap.jar:{TOMCAT}/bin/tomcat-juli.jar")])
            .args(["org.apache.catalina.startup.Bootstrap", "start"])
            .envs([("RELEASE", release), ("BACKEND", backend)])
            .current_dir(scratch.path());
        let process = Process::start(&format!("tomcat {backend}"), java, &scratch.path().join("tomcat.log"));
        Shop { port, process: process.into(), _scratch: scratch }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn wait_until_ready(&self) {
        let mut browser = Browser::new(self.port).with_timeout(Duration::from_secs(90));
        wait_for("the shop is there", Duration::from_secs(90), || {
            self.process.borrow_mut().assert_running();
            browser.send(Call::get("/shop/health")).is_ok_and(|answer| answer.status == 200)
        });
        // Compiles the pages; the sessions that this makes are nobody's.
        browser.get("/shop/").expect_status(200);
        browser.get("/shop/logout.jsp");
    }
}

const SERVER: &str = r#"<Server port="-1">
  <Service name="Catalina">
    <Connector port="@port" address="127.0.0.1" protocol="HTTP/1.1"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" autoDeploy="false"/>
    </Engine>
  </Service>
</Server>
"#;
