//! `server.watch`: the ways in which people and machines replace a file.

use std::fs;
use std::os::unix::fs::symlink;

use super::{export, shop};
use crate::origin::Origin;
use crate::process::{delay, wait_for};
use crate::shop::{Shop, backend};
use crate::tidegate::{SOON, Tidegate};

const WATCHED: &str = "server: {grace_period: 5s, threads: 2, watch: true}";

fn file(a1: &Origin, weight: u32) -> Shop {
    Shop::new("cookie").process(WATCHED).weighted_release("v1", &[(a1, weight)])
}

fn wait_for_weight(tidegate: &Tidegate, weight: u32) {
    wait_for(&format!("weight {weight} is applied"), SOON, || export(tidegate).contains(&format!("weight: {weight}\n")));
}

#[test]
fn a_file_that_is_written_renamed_or_linked_anew_is_applied() {
    let a1 = backend("v1", "a1");
    let tidegate = file(&a1, 2).start();
    let path = tidegate.folder().join("tidegate.yaml");
    tidegate.write_config(&file(&a1, 3).yaml());
    wait_for_weight(&tidegate, 3);
    // As editors do it: another file takes the name.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(tidegate.folder().join("draft"), text.replace("weight: 3", "weight: 4")).unwrap();
    fs::rename(tidegate.folder().join("draft"), &path).unwrap();
    wait_for_weight(&tidegate, 4);
    // As Kubernetes does it: `..data` is a link that is swapped, and the file a link through it.
    for weight in [5, 6] {
        let version = tidegate.folder().join(format!("..{weight}"));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("tidegate.yaml"), text.replace("weight: 3", &format!("weight: {weight}"))).unwrap();
        symlink(&version, tidegate.folder().join("..data_tmp")).unwrap();
        fs::rename(tidegate.folder().join("..data_tmp"), tidegate.folder().join("..data")).unwrap();
        if weight == 5 {
            symlink("..data/tidegate.yaml", tidegate.folder().join("link")).unwrap();
            fs::rename(tidegate.folder().join("link"), &path).unwrap();
        }
        wait_for_weight(&tidegate, weight);
    }
}

#[test]
fn a_file_that_is_still_being_written_or_wrong_changes_nothing() {
    let (a1, b1) = (backend("v1", "a1"), backend("v1", "b1"));
    let whole = |weight| {
        let blog = format!("  blog:\n    match: [{{host: blog.test}}]\n    releases: {{v1: {{backends: {{b1: \"{}\"}}}}}}\n", b1.address());
        file(&a1, weight).yaml() + &blog
    };
    let tidegate = Tidegate::start(&whole(2));
    tidegate.write_config(&whole(3));
    let text = tidegate.read("tidegate.yaml");
    let path = tidegate.folder().join("tidegate.yaml");
    // The first half is a whole file without the blog: nobody may take it for one.
    let cut = text.find("  blog:").unwrap();
    for step in 0..10 {
        fs::write(&path, &text[..cut + step]).unwrap();
        delay(std::time::Duration::from_millis(100));
    }
    fs::write(&path, &text).unwrap();
    wait_for_weight(&tidegate, 3);
    assert!(!tidegate.read("tidegate.log").contains("blog: removed"));
    fs::write(&path, text.replace("weight: 3", "wait: 3")).unwrap();
    wait_for("the log tells the problem", SOON, || tidegate.read("tidegate.log").contains("server.watch: nothing was changed"));
    assert!(export(&tidegate).contains("weight: 3\n"));
    // Switched off by the file itself; from then on only by order.
    fs::write(&path, text.replace("watch: true", "watch: false").replace("weight: 3", "weight: 4")).unwrap();
    wait_for_weight(&tidegate, 4);
    assert!(shop(&[("v1", &[&a1])]).yaml().contains("v1"));
}
