//! The manifests: valid by the schemas of Kubernetes, in agreement with each other, and their hooks do what they say.
//!
//! There is no cluster here. Names, ports and labels are compared, and what a kubelet would run when a pod is deleted is run as it
//! stands in the manifest, with the real binary.

use std::process::Command;
use std::time::Duration;

use serde_yaml::Value;

use super::{checker, project, read, run, succeeds};
use crate::process::{Process, Scratch, delay, require_file, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

const FOLDER: &str = "deploy/kubernetes";
/// A drain believes itself one idle timeout after a start without history.
const IDLE_TIMEOUT: &str = "6s";
const DRAINS: Duration = Duration::from_secs(60);

#[test]
fn every_manifest_is_valid_and_the_kustomization_names_them_all() {
    let kustomization = parsed("kustomization.yaml").remove(0);
    let mut named: Vec<String> = strings(&kustomization["resources"]);
    for file in &named {
        let said = succeeds(checker("kubernetes-validate").arg("--strict").arg(project(FOLDER).join(file)));
        assert_eq!(said.matches(" passed for resource ").count(), parsed(file).len(), "{file}: {said}");
    }
    let wrong = Scratch::new("manifest");
    let wrong = wrong.write("wrong.yaml", &read(&format!("{FOLDER}/proxy.yaml")).replace("serviceName:", "servicesName:"));
    assert!(!run(checker("kubernetes-validate").arg("--strict").arg(wrong)).0.status.success(), "the validator looks");
    for generator in ["configMapGenerator", "secretGenerator"] {
        for made in kustomization[generator].as_sequence().expect("a list") {
            named.extend(strings(&made["files"]));
        }
    }
    named.push("kustomization.yaml".to_owned());
    named.sort();
    let mut there: Vec<String> =
        project(FOLDER).read_dir().expect("a folder").flatten().map(|entry| entry.file_name().display().to_string()).collect();
    there.push("token".to_owned()); // each makes their own
    there.sort();
    there.dedup();
    assert_eq!(named, there);
    require_file("/usr/bin/shellcheck", "shellcheck");
    succeeds(Command::new("shellcheck").arg(project(FOLDER).join("wait-for-drain.sh")));
    kubectl_renders_them();
}

#[test]
fn the_manifests_agree_with_each_other_and_with_the_configuration() {
    let all: Vec<Value> = ["proxy.yaml", "network.yaml", "shop-v1.yaml", "shop-v2.yaml"].iter().flat_map(|file| parsed(file)).collect();
    let pods: Vec<&Value> = all.iter().map(|object| &object["spec"]["template"]).filter(|template| template.is_mapping()).collect();
    assert_eq!(pods.len(), 3);
    for object in &all {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let spec = &object["spec"];
        let selector = [&spec["selector"]["matchLabels"], &spec["podSelector"]["matchLabels"], &spec["selector"]];
        let selector = selector.into_iter().find(|labels| labels.is_mapping()).and_then(Value::as_mapping).expect("a selector");
        let is_meant = |pod: &Value| selector.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value));
        let meant: Vec<&&Value> = pods.iter().filter(|pod| is_meant(pod)).collect();
        assert_eq!(meant.len(), if name == "shop" { 2 } else { 1 }, "{name}: pods that it selects");
    }
    for pod in pods {
        is_restricted_and_complete(pod);
    }
    let services: Vec<&Value> = all.iter().filter(|object| object["kind"] == "Service").collect();
    let addresses = services.iter().map(|service| {
        let port = service["spec"]["ports"][0]["port"].as_u64().expect("a port");
        format!("{}:{port}", service["metadata"]["name"].as_str().expect("a name"))
    });
    let addresses: Vec<String> = addresses.collect();
    let config: Value = serde_yaml::from_str(&read(&format!("{FOLDER}/tidegate.yaml"))).expect("YAML");
    let backends = &config["apps"]["shop"]["releases"]["v1"]["backends"];
    assert!(addresses.contains(&backends["a1"].as_str().expect("an address").to_owned()), "{addresses:?}");
    assert!(read(&format!("{FOLDER}/kustomization.yaml")).contains("stage shop v2 --backend b1=shop-v2:8080"));
    for needed in ["shop-v2:8080", "tidegate-admin:9180"] {
        assert!(addresses.contains(&needed.to_owned()), "{addresses:?}");
    }
    let checked = crate::tidegate::check(&read(&format!("{FOLDER}/tidegate.yaml")));
    checked.expect_code(0);
    let v1 = read(&format!("{FOLDER}/shop-v1.yaml"));
    let v2 = v1.replace("shop-v1", "shop-v2").replace("shop/v1", "shop/v2").replace("version: v1", "version: v2");
    let v2 = v2.replace("value: v1", "value: v2").replace("value: a1", "value: b1").replace("Release v1", "Release v2");
    assert_eq!(read(&format!("{FOLDER}/shop-v2.yaml")), v2, "a release is a copy of another");
}

/// What the Pod Security Standard "restricted" asks, and that each volume mounted is one that is there.
fn is_restricted_and_complete(pod: &Value) {
    let spec = &pod["spec"];
    assert_eq!(spec["securityContext"]["runAsNonRoot"], Value::from(true));
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let volumes = spec["volumes"].as_sequence().expect("volumes");
    let names: Vec<&str> = volumes.iter().filter_map(|volume| volume["name"].as_str()).chain(["state"]).collect();
    for container in spec["containers"].as_sequence().expect("containers") {
        let name = container["name"].as_str().expect("a name");
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], Value::from(false), "{name}");
        assert_eq!(strings(&context["capabilities"]["drop"]), ["ALL"], "{name}");
        for mount in container["volumeMounts"].as_sequence().expect("mounts") {
            assert!(names.contains(&mount["name"].as_str().expect("a name")), "{name}: {mount:?}");
        }
    }
}

/// More, where somebody has a kubectl: Debian's is too old for these files, so the checks above are without.
fn kubectl_renders_them() {
    let scratch = Scratch::new("kustomize");
    let folder = scratch.path().join("k");
    succeeds(Command::new("cp").arg("-r").arg(project(FOLDER)).arg(&folder));
    scratch.write("k/token", "0123456789abcdef0123456789abcdef\n");
    if let Ok(rendered) = Command::new("kubectl").arg("kustomize").arg(&folder).output() {
        assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        let file = scratch.write("all.yaml", &String::from_utf8_lossy(&rendered.stdout));
        let said = succeeds(checker("kubernetes-validate").arg("--strict").arg(file));
        assert_eq!(said.matches(" passed for resource ").count(), 16, "{said}");
    }
}

#[test]
fn a_pod_that_is_deleted_stays_until_its_release_is_drained() {
    let (a1, b1) = (backend("v1", "a1"), backend("v2", "b1"));
    let tidegate = Shop::new("cookie")
        .session(&format!("idle_timeout: {IDLE_TIMEOUT}"))
        .session("confirm_within: 2s")
        .release("v1", &[&a1])
        .release("v2", &[&b1])
        .start();
    let mut user = tidegate.browser();
    assert_eq!((user.get("/").word("release"), user.get("/").number("counter")), ("v1".to_owned(), 2));
    let mut pod = Pod::deleted(&tidegate, "v1");
    // v1 is current: somebody deleted the wrong one, and it serves on.
    wait_for("it was refused", SOON, || pod.asks.log_tail().contains("promote another one first"));
    assert_eq!((pod.asks.ended(), pod.shop.ended()), (None, None));
    tidegate.cli(&["promote", "shop", "v2"]).expect_code(0);
    let mut clicks = 2;
    let mut click = || {
        clicks += 1;
        assert_eq!(user.get("/").number("counter"), clicks, "v1 keeps its own");
    };
    // Longer than the script's own pause between two questions, and than an idle session lives.
    for _ in 0..80 {
        click();
        delay(Duration::from_millis(100));
    }
    assert_eq!((pod.asks.ended(), pod.shop.ended()), (None, None), "somebody is there");
    user.get("/logout").expect_status(200);
    wait_for("the pod may go", DRAINS, || pod.shop.ended().is_some());
    assert!(pod.asks.wait(SOON).success());
    assert_eq!(tidegate.release_state("shop", "v1"), "stopped");

    // One that was forgotten by tidegate has nobody.
    let mut pod = Pod::deleted(&tidegate, "v9");
    wait_for("the pod may go", DRAINS, || pod.shop.ended().is_some());
}

#[test]
fn the_container_that_asks_ends_when_it_is_told() {
    let scratch = Scratch::new("idles");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).args(strings(&containers("v1")[1]["command"]));
    let mut process = Process::start("unshare", command, &scratch.path().join("log"));
    let children = format!("/proc/{0}/task/{0}/children", process.id());
    // A first process is deaf until it has set its trap: told again until it hears.
    wait_for("it ends", SOON, || {
        let child = std::fs::read_to_string(&children).unwrap_or_default();
        if let Ok(pid) = child.trim().parse() {
            crate::upgrade::signal(pid, rustix::process::Signal::TERM);
        }
        process.ended().is_some()
    });
}

/// The two hooks of a release's pod, as a kubelet runs them at once.
struct Pod {
    asks: Process,
    shop: Process,
    _scratch: Scratch,
}

impl Pod {
    fn deleted(tidegate: &Tidegate, release: &str) -> Pod {
        let scratch = Scratch::new("pod");
        scratch.write("drain/.keep", "");
        std::os::unix::fs::symlink(binary(), scratch.path().join("tidegate")).expect("a link");
        let token = std::fs::read_to_string(tidegate.folder().join("token")).expect("a token");
        let path = format!("{}:{}", scratch.path().display(), std::env::var("PATH").expect("a path"));
        let hook = |container: usize| {
            let words = strings(&containers("v1")[container]["lifecycle"]["preStop"]["exec"]["command"]).into_iter();
            let here = [("/drain/", format!("{}/drain/", scratch.path().display())), ("/scripts", project(FOLDER).display().to_string())];
            let words = words.map(|word| {
                here.iter().fold(word, |word, (place, here)| word.replace(place, here)).replace("shop/v1", &format!("shop/{release}"))
            });
            let words: Vec<String> = words.collect();
            let mut command = Command::new(&words[0]);
            // The secret as it is: with the line's end that `openssl rand` wrote.
            command.args(&words[1..]).env("PATH", &path).env("TIDEGATE_ADMIN", tidegate.admin_url()).env("TIDEGATE_TOKEN", &token);
            Process::start(&format!("preStop-{container}"), command, &scratch.path().join(format!("{container}.log")))
        };
        let (shop, asks) = (hook(0), hook(1));
        Pod { asks, shop, _scratch: scratch }
    }
}

/// The containers of a release's pod.
fn containers(release: &str) -> Vec<Value> {
    let deployment = parsed(&format!("shop-{release}.yaml")).remove(0);
    deployment["spec"]["template"]["spec"]["containers"].as_sequence().expect("containers").clone()
}

fn parsed(file: &str) -> Vec<Value> {
    let text = read(&format!("{FOLDER}/{file}"));
    let documents = serde_yaml::Deserializer::from_str(&text).map(serde::Deserialize::deserialize);
    documents.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn strings(list: &Value) -> Vec<String> {
    list.as_sequence().expect("a list").iter().map(|item| item.as_str().expect("text").to_owned()).collect()
}
