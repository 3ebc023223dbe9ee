//! The Debian package: built, looked into, and installed, upgraded, removed and purged by the real dpkg.
//!
//! dpkg works in a room of its own: a copy-on-write view of this machine whose changes nobody else sees and that ends with the
//! test. Only `systemctl` is a stub there: it notes what it is asked, and knows one service.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{project, succeeds};
use crate::client::{Browser, Call};
use crate::process::{Process, Scratch, free_port, require_file, require_root, wait_for, wait_for_some};
use crate::shop::backend;
use crate::tidegate::{SOON, binary};

/// What is run as root on other people's machines, and what makes it.
const SCRIPTS: [&str; 4] = ["build", "postinst", "prerm", "postrm"];

#[test]
fn the_debian_package_upgrades_a_running_tidegate_and_nobody_notices() {
    require_root();
    require_file("/usr/bin/dpkg-deb", "dpkg");
    require_file("/usr/bin/shellcheck", "shellcheck");
    require_file("/usr/sbin/logrotate", "logrotate");
    for script in SCRIPTS {
        succeeds(Command::new("shellcheck").arg(project("deploy/debian").join(script)));
    }
    let scratch = Scratch::new("debian");
    let built = build(&scratch);
    what_is_in_it(&scratch, &built);
    let versions = ["0.1.0-2", "0.1.0-3"].map(|version| with_version(&scratch, &built, version));

    let room = Room::open();
    let said = room.dpkg(&["-i", &built]);
    assert!(said.contains("systemctl enable --now tidegate"), "{said}");
    assert_eq!(room.shell("stat -c '%a %U:%G' /etc/tidegate/token"), "640 root:tidegate-admin\n");
    assert_eq!(room.shell("wc -c < /etc/tidegate/token"), "65\n", "256 bits and the line's end");
    assert_eq!(room.shell("id -gn tidegate"), "tidegate\n");
    room.shell("tidegate check -c /etc/tidegate/tidegate.yaml");
    room.shell("systemd-analyze verify --man=no /usr/lib/systemd/system/tidegate.service");
    let token = room.shell("cat /etc/tidegate/token");

    the_hook_of_its_comment_hands_over_a_certificate(&room);
    let a1 = backend("v1", "a1");
    let service = Service::start(&room, &a1.address());
    let mut user = Browser::new(service.port);
    assert_eq!((user.get("/").number("counter"), user.get("/").number("counter")), (1, 2));
    let said = room.dpkg(&["-i", &versions[0]]);
    assert!(said.contains("the new program serves, and nobody was interrupted"), "{said}");
    assert_eq!(user.get("/").number("counter"), 3, "the session goes on");
    wait_for("the old process is gone", SOON, || room.shell("pidof tidegate").split_whitespace().count() == 1);

    // Who is in the group may give orders, and needs to name no file; who is not may not.
    let order = |group: &str| {
        format!(
            ". /etc/default/tidegate; TIDEGATE_ADMIN=$TIDEGATE_ADMIN setpriv --reuid=nobody --regid=nogroup --groups={group} tidegate reload"
        )
    };
    room.shell(&order("tidegate-admin"));
    assert!(room.shell(&format!("! {{ {}; }} 2>&1", order("nogroup"))).contains("a token is needed"));

    room.shell("logrotate --force /etc/logrotate.d/tidegate");
    wait_for("a new log is begun", SOON, || room.shell("ls /var/log/tidegate").split_whitespace().eq(["access.log", "access.log.1"]));
    assert_eq!(user.get("/").number("counter"), 4);
    let lines = || room.shell("cd /var/log/tidegate; wc -l < access.log.1; wc -l < access.log");
    wait_for("the next line is in the new one", SOON, || lines() == "3\n1\n");

    // The new program refuses: here because of the file, which it would be told to run with.
    room.shell("cp /etc/tidegate/tidegate.yaml /good && echo 'nonsense: 1' >> /etc/tidegate/tidegate.yaml");
    let process = room.shell("pidof tidegate");
    let said = room.dpkg(&["-i", &versions[1]]);
    assert!(said.contains("nonsense") && said.contains("THE OLD PROGRAM STILL RUNS"), "{said}");
    assert_eq!((user.get("/").number("counter"), room.shell("pidof tidegate")), (5, process));
    room.shell("cp /good /etc/tidegate/tidegate.yaml");
    let asked = room.shell("cat /systemctl.log");
    assert!(asked.contains("daemon-reload") && !asked.contains("stop") && !asked.contains("start"), "{asked}");
    assert_eq!(room.shell("cat /etc/tidegate/token"), token, "made once");

    room.dpkg(&["-r", "tidegate"]);
    assert!(room.shell("cat /systemctl.log").contains("stop tidegate.service"));
    assert!(Browser::new(service.port).send(Call::get("/")).is_err(), "it was stopped");
    room.shell("test ! -e /usr/bin/tidegate && test -e /var/lib/tidegate/state.db && test -e /etc/tidegate/tidegate.yaml");

    // Installed again: nothing is masked any more, and what is stopped stays so, now and when a later version comes.
    room.shell("> /systemctl.log");
    for package in [&built, &versions[0]] {
        let said = room.dpkg(&["-i", package]);
        assert!(!said.contains("serves") && !said.contains("STILL RUNS"), "{said}");
        room.shell(
            "systemd-analyze verify --man=no /usr/lib/systemd/system/tidegate.service; \
             test ! -L /etc/systemd/system/tidegate.service; ! pidof tidegate",
        );
        assert_eq!(room.shell("cat /etc/tidegate/token"), token);
    }
    let asked = room.shell("cat /systemctl.log");
    assert!(asked.contains("is-active") && !asked.contains("start") && !asked.contains("stop"), "{asked}");

    // An example that says nothing of state and token: both are the unit's and the package's, and so `systemctl reload` works.
    room.shell("cp /usr/share/doc/tidegate/examples/minimal.yaml /etc/tidegate/tidegate.yaml; rm -r /var/lib/tidegate");
    let service = Service::start(&room, &a1.address());
    room.shell("test -e /var/lib/tidegate/state.db && test ! -e /var/lib/tidegate/token");
    let reload = fs::read_to_string(project("deploy/systemd/tidegate.service")).expect("the unit");
    let reload = reload.lines().find_map(|line| line.strip_prefix("ExecReload=")).expect("a line").to_owned();
    room.shell(&format!(". /etc/default/tidegate; export TIDEGATE_ADMIN; {reload}"));
    room.shell(&order("tidegate-admin"));
    room.dpkg(&["-r", "tidegate"]);
    assert!(Browser::new(service.port).send(Call::get("/")).is_err(), "it was stopped");
    room.dpkg(&["-P", "tidegate"]);
    room.shell("test ! -e /var/lib/tidegate && test ! -e /etc/tidegate && test ! -e /etc/default/tidegate && test ! -e /var/log/tidegate");
}

/// What the comment of the configuration shows: the hook as it is, and the listener that goes with it.
fn the_hook_of_its_comment_hands_over_a_certificate(room: &Room) {
    let as_the_user = "setpriv --reuid=tidegate --regid=tidegate --clear-groups";
    room.shell(
        "mkdir -m 700 /lineage; openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=shop \
         -keyout /lineage/privkey.pem -out /lineage/fullchain.pem 2>/dev/null",
    );
    room.shell(&format!("! {as_the_user} cat /lineage/privkey.pem 2>/dev/null"));
    room.shell(
        "sed -n '/^  #   #!/,/^  #   systemctl/s/^  #   //p' /etc/tidegate/tidegate.yaml > /hook; \
         chmod 755 /hook; RENEWED_LINEAGE=/lineage /hook",
    );
    assert_eq!(room.shell("stat -c '%a %U:%G' /etc/tidegate/shop.key"), "640 root:tidegate\n");
    assert!(room.shell("cat /systemctl.log").contains("reload tidegate"));
    let listener = r"s/^  #\( *\)\(- address:\|tls:\|certificates:\|- {certificate:\)/  \1\2/";
    room.shell(&format!("sed '{listener}' /etc/tidegate/tidegate.yaml > /tls.yaml && grep -q '^      certificates:' /tls.yaml"));
    room.shell(&format!("{as_the_user} tidegate check -c /tls.yaml"));
    room.shell("rm /etc/tidegate/shop.pem /etc/tidegate/shop.key");
}

fn build(scratch: &Scratch) -> String {
    let mut command = Command::new(project("deploy/debian/build"));
    succeeds(command.arg("--fast").arg("--binary").arg(binary()).arg("--output").arg(scratch.path()));
    let made = fs::read_dir(scratch.path()).expect("a folder").flatten();
    let package = made.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|kind| kind == "deb"));
    package.expect("a package").display().to_string()
}

fn what_is_in_it(scratch: &Scratch, package: &str) {
    let listed = succeeds(Command::new("dpkg-deb").args(["--contents", package]));
    let mode_of = |path: &str| {
        let line = listed.lines().find(|line| line.ends_with(&format!(" ./{path}")));
        line.unwrap_or_else(|| panic!("no {path} in\n{listed}")).split(' ').next().unwrap_or_default().to_owned()
    };
    for program in ["usr/bin/tidegate", "usr/share/tidegate/pipeline/deploy.sh"] {
        assert_eq!(mode_of(program), "-rwxr-xr-x", "{program}");
    }
    for file in [
        "etc/tidegate/tidegate.yaml",
        "etc/default/tidegate",
        "etc/logrotate.d/tidegate",
        "usr/lib/systemd/system/tidegate.service",
        "usr/lib/sysusers.d/tidegate.conf",
        "usr/share/bash-completion/completions/tidegate",
        "usr/share/zsh/vendor-completions/_tidegate",
        "usr/share/fish/vendor_completions.d/tidegate.fish",
        "usr/share/man/man1/tidegate.1.gz",
        "usr/share/man/man1/tidegate-promote.1.gz",
        "usr/share/doc/tidegate/copyright",
        "usr/share/doc/tidegate/README.md",
        "usr/share/doc/tidegate/examples/reference.yaml",
        "usr/share/doc/tidegate/examples/COMING_FROM.md",
        "usr/share/tidegate/grafana/dashboards/drain.json",
        "usr/share/tidegate/prometheus/alerts.yml",
    ] {
        assert_eq!(mode_of(file), "-rw-r--r--", "{file}");
    }
    let others = listed.lines().filter(|line| !line.contains(" 0/0 ") && !line.contains(" root/root "));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0], "everything belongs to root");
    let fields = succeeds(Command::new("dpkg-deb").args(["--field", package]));
    for dependency in ["libc6 (", "libssl3 (", "systemd"] {
        assert!(fields.lines().any(|line| line.starts_with("Depends: ") && line.contains(dependency)), "{fields}");
    }
    for recommended in ["curl", "jq", "logrotate"] {
        assert!(fields.lines().any(|line| line.starts_with("Recommends: ") && line.contains(recommended)), "{fields}");
    }
    let folder = scratch.path().join("control");
    succeeds(Command::new("dpkg-deb").arg("--control").arg(package).arg(&folder));
    let conffiles = fs::read_to_string(folder.join("conffiles")).expect("conffiles");
    assert_eq!(
        conffiles.split_whitespace().collect::<Vec<_>>(),
        ["/etc/tidegate/tidegate.yaml", "/etc/default/tidegate", "/etc/logrotate.d/tidegate"]
    );
    for script in ["postinst", "prerm", "postrm"] {
        succeeds(Command::new("sh").arg("-n").arg(folder.join(script)));
    }
    let unpacked = scratch.path().join("unpacked");
    succeeds(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked));
    let documents = unpacked.join("usr/share/doc/tidegate");
    let copyright = fs::read_to_string(documents.join("copyright")).expect("a copyright");
    assert!(copyright.contains("License: Apache-2.0") && copyright.contains("/usr/share/common-licenses/Apache-2.0"), "{copyright}");
    let mut links = 0;
    for (document, wanted) in [("README.md", "conf/"), ("examples/COMING_FROM.md", "")] {
        let text = fs::read_to_string(documents.join(document)).expect(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.starts_with(wanted) && !target.contains("://") {
                let folder = documents.join(document).parent().expect("a folder").to_owned();
                assert!(folder.join(target).exists(), "{document} links to {target}");
                links += 1;
            }
        }
    }
    assert!(links > 10, "{links}");
    let version = succeeds(Command::new(unpacked.join("usr/bin/tidegate")).arg("--version"));
    assert_eq!(version.trim(), format!("tidegate {}", env!("CARGO_PKG_VERSION")));
}

/// The same package as a later one.
fn with_version(scratch: &Scratch, package: &str, version: &str) -> String {
    let (folder, later) = (scratch.path().join(version), scratch.path().join(format!("later_{version}.deb")));
    succeeds(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&folder));
    let control = folder.join("DEBIAN/control");
    let fields = fs::read_to_string(&control).expect("control");
    let edited: Vec<&str> = fields.lines().filter(|line| !line.starts_with("Version: ")).collect();
    fs::write(&control, format!("Version: {version}\n{}\n", edited.join("\n"))).expect("the scratch directory is writable");
    succeeds(Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "--build"]).arg(&folder).arg(&later));
    later.display().to_string()
}

/// A view of this machine that may be changed.
struct Room {
    within: String,
    root: PathBuf,
    scratch: Scratch,
    _holder: Process,
}

impl Room {
    fn open() -> Room {
        let scratch = Scratch::new("room");
        let room = scratch.path().join("room");
        fs::create_dir(&room).expect("a folder");
        let script = scratch.write("open.sh", &OPEN.replace("@room", &room.display().to_string()));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-eu"]).arg(script);
        let mut holder = Process::start("unshare", command, &scratch.path().join("room.log"));
        let open = scratch.path().join("open");
        wait_for("the room is open", SOON, || {
            holder.assert_running();
            open.exists()
        });
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let within = wait_for_some("somebody is in it", SOON, || fs::read_to_string(&children).ok().filter(|pid| !pid.trim().is_empty()));
        let room = Room { within: within.trim().to_owned(), root: room.join("machine"), scratch, _holder: holder };
        // A container forbids services to be started and stopped; this is no container.
        room.shell("rm -f /usr/bin/systemctl /usr/sbin/policy-rc.d && touch /systemctl.log");
        room.write("/usr/bin/systemctl", SYSTEMCTL);
        room.shell("chmod 755 /usr/bin/systemctl");
        room
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.within, "--mount", "--pid", "chroot"]).arg(&self.root);
        command
    }

    /// What a shell says there, if it succeeds.
    #[track_caller]
    fn shell(&self, line: &str) -> String {
        succeeds(self.command().args(["sh", "-ec", line]))
    }

    fn write(&self, path: &str, content: &str) {
        let file = self.scratch.write("passed", content);
        self.shell(&format!("cat {} > {path}", file.display()));
    }

    #[track_caller]
    fn dpkg(&self, arguments: &[&str]) -> String {
        // Triggers are other packages' work: manual pages, say. Their time is not ours.
        let mut command = self.command();
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--no-triggers", "--force-unsafe-io"]).args(arguments);
        succeeds(&mut command)
    }
}

/// A read-only floor, this machine, and above it what is written there. The stub of a running systemd is a folder.
const OPEN: &str = "\
mount -t tmpfs tmpfs @room
mkdir @room/written @room/work @room/machine
mount -t overlay overlay -o lowerdir=/,upperdir=@room/written,workdir=@room/work @room/machine
mount -t proc proc @room/machine/proc
mount --rbind /dev @room/machine/dev
mount -t tmpfs tmpfs @room/machine/run
mkdir -p @room/machine/run/systemd/system
touch @room/../open
exec sleep infinity
";

const SYSTEMCTL: &str = "\
#!/bin/sh
echo \"$*\" >> /systemctl.log
case \"$*\" in
    *is-active*tidegate*) pidof tidegate > /dev/null ;;
    *kill*USR1*tidegate*) kill -USR1 $(pidof tidegate) ;;
    *stop*tidegate*) kill $(pidof tidegate); while pidof tidegate > /dev/null; do sleep 0.1; done ;;
esac
";

/// What systemd would do: the installed program, by the installed configuration, as its own user.
struct Service {
    port: u16,
    _process: Process,
}

impl Service {
    fn start(room: &Room, address: &str) -> Service {
        let (port, admin) = (free_port(), free_port());
        // An operator's edit, which must outlive every upgrade.
        let edit = format!(
            "sed -i 's/0.0.0.0:80\\(80\\)\\?$/127.0.0.1:{port}/; s/127.0.0.1:9180/127.0.0.1:{admin}/; s/127.0.0.1:8081/{address}/; s|path: /$|path: /health|' \
             /etc/tidegate/tidegate.yaml; echo TIDEGATE_ADMIN=http://127.0.0.1:{admin} >> /etc/default/tidegate; \
             install -d -o tidegate -g tidegate -m 700 /var/lib/tidegate; install -d -o tidegate -g tidegate -m 750 /var/log/tidegate; \
             echo 'server: {{access_log: {{path: /var/log/tidegate/access.log}}}}' >> /etc/tidegate/tidegate.yaml"
        );
        room.shell(&edit);
        room.shell(&format!(
            "cd /etc/tidegate; grep -q ^admin: tidegate.yaml || echo 'admin: {{address: \"127.0.0.1:{admin}\"}}' >> tidegate.yaml"
        ));
        let mut command = room.command();
        command.args(["setpriv", "--reuid=tidegate", "--regid=tidegate", "--groups=tidegate-admin", "--no-new-privs"]);
        command.args(["/usr/bin/tidegate", "run", "-c", "/etc/tidegate/tidegate.yaml"]).env("STATE_DIRECTORY", "/var/lib/tidegate");
        let mut process = Process::start("tidegate", command, &room.scratch.path().join("tidegate.log"));
        process.has_heirs();
        wait_for("it is ready", Duration::from_secs(30), || {
            process.assert_running();
            Browser::new(admin).send(Call::get("/readyz")).is_ok_and(|answer| answer.status == 200)
        });
        assert!(!process.log_tail().contains("can be read"), "{}", process.log_tail());
        Service { port, _process: process }
    }
}
