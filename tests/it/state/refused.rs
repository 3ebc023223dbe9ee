//! State directories that cannot be used: each start is refused with 1 and words that help, and changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{at_home, users};
use crate::process::Scratch;
use crate::shop::{Shop, backend};
use crate::tidegate::Tidegate;

#[test]
fn a_second_process_is_refused_and_told_of_the_first_by_whatever_path_it_comes() {
    let (a1, other) = (backend("v1", "a1"), Scratch::new("link"));
    let first = Shop::new("cookie").release("v1", &[&a1]).start();
    let directory = first.folder().join("state");
    let link = other.path().join("state");
    symlink(&directory, &link).unwrap();
    for path in [&directory, &link] {
        let shop = Shop::new("cookie").process(&format!("state: {{directory: {}}}", path.display())).release("v1", &[&a1]);
        let said = Tidegate::try_start(&shop.yaml()).map(drop).expect_err("it is taken");
        let owner = format!("is in use by process {} (admin {})", first.process_id(), first.admin_url());
        assert!(said.contains(&owner) && said.contains("stop it first"), "{said}");
    }
    first.browser().get("/").expect_status(200);
}

#[test]
fn a_directory_behind_a_link_is_used_as_any_other() {
    let (a1, real) = (backend("v1", "a1"), Scratch::new("real"));
    let link = real.path().join("link");
    symlink(real.path(), &link).unwrap();
    let shop = Shop::new("learn").process(&format!("state: {{directory: {}}}", link.display())).release("v1", &[&a1]);
    let mut tidegate = shop.start();
    let mut users = users(&tidegate, 3);
    assert!(tidegate.stop().success());
    tidegate.start_again();
    assert_eq!(at_home(&mut users), 3);
    assert!(real.path().join("state.db").exists());
}

#[test]
fn the_directory_is_0700_and_everything_in_it_is_0600() {
    let a1 = backend("v1", "a1");
    let tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = tidegate.folder().join("state");
    let mut files = 0;
    for directory in [state.clone(), state.join("keys")] {
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            assert_eq!(mode(&entry), 0o600, "{}", entry.display());
            files += 1;
        }
    }
    assert!(files >= 4, "the file, the lock and two keys: {files}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let a1 = backend("v1", "a1");
    for place in ["/proc/nobody/state", "@folder/tidegate.yaml/state"] {
        let shop = Shop::new("cookie").process(&format!("state: {{directory: {place}}}")).release("v1", &[&a1]);
        let said = Tidegate::try_start(&shop.yaml()).map(drop).expect_err("it cannot be made");
        let end = place.trim_start_matches("@folder");
        assert!(said.contains(end) && said.contains("set another state.directory") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_file_that_is_none_of_ours_or_of_a_later_version_is_left_as_it_is() {
    let a1 = backend("v1", "a1");
    let mut tidegate = Shop::new("cookie").release("v1", &[&a1]).start();
    let mut users = users(&tidegate, 3);
    assert!(tidegate.stop().success());
    let file = tidegate.folder().join("state/state.db");
    let good = fs::read(&file).unwrap();
    let sql = |sql: &str| rusqlite::Connection::open(&file).and_then(|connection| connection.execute_batch(sql)).unwrap();
    let check = |tidegate: &mut Tidegate, expected: &[&str]| {
        let before = fs::read(&file).unwrap();
        let said = tidegate.try_start_again(&[]).unwrap_err();
        assert!(said.contains(&file.display().to_string()) && expected.iter().all(|words| said.contains(words)), "{said}");
        assert_eq!(fs::read(&file).unwrap(), before, "left as it was");
    };
    sql("PRAGMA user_version = 9");
    check(&mut tidegate, &["has format 9", "run the later version again", "mv "]);
    fs::remove_file(&file).unwrap();
    sql("CREATE TABLE notes (text TEXT)");
    check(&mut tidegate, &["was not written by tidegate", "move it away"]);
    fs::write(&file, "").unwrap();
    check(&mut tidegate, &["it is empty", "mv "]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let said = tidegate.try_start_again(&[]).unwrap_err();
    assert!(said.contains("state.db") && !said.contains("panicked"), "{said}");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, good).unwrap();
    tidegate.try_start_again(&[]).unwrap();
    assert_eq!(at_home(&mut users), 3);
}
