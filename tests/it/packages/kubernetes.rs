//! The manifests: valid by the schemas of Kubernetes, in agreement with each other, and their hooks do what they say.
//!
//! There is no cluster here. Names, ports and labels are compared, and what a kubelet would run when a pod is deleted is run as it
//! stands in the manifest, with the real binary.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_yaml::Value;

use super::{checker, project, read, run, succeeds};
use crate::process::{Process, Scratch, delay, free_port, require_file, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate, binary};

const FOLDER: &str = "deploy/kubernetes";
/// A drain believes itself one idle timeout after a start without history.
const IDLE_TIMEOUT: &str = "6s";
/// Those of `kustomize.config.k8s.io/v1beta1` that these files use; an unknown one would be refused by `kubectl apply -k`.
const KUSTOMIZATION: [&str; 8] =
    ["apiVersion", "kind", "namespace", "resources", "images", "generatorOptions", "configMapGenerator", "secretGenerator"];
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
    for field in kustomization.as_mapping().expect("a mapping").keys() {
        assert!(KUSTOMIZATION.contains(&field.as_str().expect("a name")), "{field:?} is no field of a Kustomization");
    }
    // The images of the pods are named without a tag, and each gets one here.
    let renamed: Vec<&str> = kustomization["images"].as_sequence().expect("images").iter().filter_map(|i| i["name"].as_str()).collect();
    let pods: Vec<Value> = ["proxy.yaml", "shop-v1.yaml", "shop-v2.yaml"].iter().map(|file| parsed(file).remove(0)).collect();
    let containers = pods.iter().flat_map(|pod| pod["spec"]["template"]["spec"]["containers"].as_sequence().expect("containers"));
    for image in containers.map(|container| container["image"].as_str().expect("an image")) {
        assert!(renamed.contains(&image), "{image} has no place in a registry");
    }
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
    wait_for("it was refused", SOON, || pod.said().contains("promote another one first"));
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
fn a_pod_is_not_taken_for_empty_because_tidegate_cannot_be_asked() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    assert_eq!(tidegate.browser().get("/").word("release"), "v1");
    // An outage of one question: everything but `sessions` is answered.
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let wrapper = format!("#!/bin/sh\n[ \"$1\" != sessions ] || set -- --admin {nowhere} \"$@\"\nexec {} \"$@\"\n", binary().display());
    let mut pod = Pod::deleted_with(&tidegate, "v1", &wrapper);
    let refusals = |pod: &Pod| pod.said().matches("promote another one first").count();
    wait_for("it asks again", DRAINS, || refusals(&pod) >= 2 || pod.shop.ended().is_some());
    assert_eq!((pod.asks.ended(), pod.shop.ended()), (None, None), "somebody may be there");

    // Another token than the process began with: refused, and again nobody has said that the release is empty.
    pod.scratch.write("token", "another-token-of-enough-letters\n");
    wait_for("it is refused", DRAINS, || pod.said().contains("use the one in admin.token_file"));
    let asked = refusals(&pod);
    pod.scratch.write("token", &tidegate.read("token"));
    wait_for("the file is read anew", DRAINS, || refusals(&pod) > asked);
    assert_eq!((pod.asks.ended(), pod.shop.ended()), (None, None), "somebody may be there");
}

#[test]
fn the_container_that_asks_ends_when_it_is_told() {
    crate::process::require_root();
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
    scratch: Scratch,
}

impl Pod {
    fn deleted(tidegate: &Tidegate, release: &str) -> Pod {
        Pod::deleted_with(tidegate, release, &format!("#!/bin/sh\nexec {} \"$@\"\n", binary().display()))
    }

    /// With a script for its program `tidegate`.
    fn deleted_with(tidegate: &Tidegate, release: &str, program: &str) -> Pod {
        let scratch = Scratch::new("pod");
        scratch.write("drain/.keep", "");
        let program = scratch.write("tidegate", program);
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).expect("our own file");
        // The secret as it is: with the line's end that `openssl rand` wrote.
        scratch.write("token", &tidegate.read("token"));
        let path = format!("{}:{}", scratch.path().display(), std::env::var("PATH").expect("a path"));
        let hook = |container: usize| {
            let words = strings(&containers("v1")[container]["lifecycle"]["preStop"]["exec"]["command"]).into_iter();
            let own = scratch.path().display();
            let here = [
                ("/drain/", format!("{own}/drain/")),
                ("/etc/tidegate/", format!("{own}/")),
                ("/proc/1/fd/1", format!("{own}/container.log")),
                ("/scripts", project(FOLDER).display().to_string()),
            ];
            let words = words.map(|word| {
                here.iter().fold(word, |word, (place, here)| word.replace(place, here)).replace("shop/v1", &format!("shop/{release}"))
            });
            let words: Vec<String> = words.collect();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).env("PATH", &path).env("TIDEGATE_ADMIN", tidegate.admin_url());
            Process::start(&format!("preStop-{container}"), command, &scratch.path().join(format!("{container}.log")))
        };
        let (shop, asks) = (hook(0), hook(1));
        Pod { asks, shop, scratch }
    }

    /// The log of the container that asks.
    fn said(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("container.log")).unwrap_or_default()
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
