//! Every crate that is linked has a licence that goes with ours. A new dependency with another one fails here, and not years
//! later with a lawyer.

use std::process::Command;

/// Licences that may be combined with Apache-2.0 in one program without conditions on the rest of it.
const FREE: [&str; 11] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_dependency_may_be_given_on_under_our_licence() {
    // Of this platform alone: what was built here is there without a network.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let listed = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .expect("cargo runs: it built this test");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let packages = listed["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 100, "only {} packages", packages.len());
    for package in packages {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or_default());
        assert!(is_free(licence), "{name}: licence {licence:?}; choose another crate, or add the licence here with a reason");
    }
}

#[test]
fn an_expression_is_free_if_each_of_its_parts_offers_a_free_licence() {
    let check = |expression: &str, free| assert_eq!(is_free(expression), free, "{expression}");
    check("MIT", true);
    check("GPL-3.0-only", false);
    check("GPL-3.0-only OR MIT", true);
    check("GPL-3.0-only AND MIT", false);
    check("(MIT OR GPL-2.0) AND Unicode-3.0", true);
    check("MIT/Apache-2.0", true);
    check("", false);
}

/// SPDX expressions as crates write them: `/` is an old form of `OR`, and `AND` stands between alternatives at most.
fn is_free(expression: &str) -> bool {
    let offers = |part: &str| part.split(" OR ").flat_map(|p| p.split('/')).any(|one| FREE.contains(&one.trim_matches([' ', '(', ')'])));
    expression.split(" AND ").all(offers)
}
