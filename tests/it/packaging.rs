//! What the program is delivered in: the unit of systemd, the scripts of the Debian package, the files of the image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::harness::edge::binary;

/// The most that `systemd-analyze security` may find: tenths of its points, of which fewer are better.
const EXPOSURE: &str = "20";

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

/// All that a command said; it must have ended well.
#[track_caller]
fn well(command: &mut Command) -> String {
    let output = command.output().expect("the program is installed: make setup");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn script(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder can be written to");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[test]
fn systemd_understands_the_unit_and_finds_it_closed() {
    let folder = folder();
    let unit = folder.path().join("edgeproxy.service");
    let text = fs::read_to_string(packaging("edgeproxy.service")).expect("it is shipped");
    // The program is not installed here, and neither is its page of the manual.
    let here = text.replace("/usr/bin/edgeproxy", &binary().display().to_string());
    let here: Vec<&str> = here.lines().filter(|line| !line.starts_with("Documentation=")).collect();
    fs::write(&unit, here.join("\n")).expect("the folder can be written to");
    let said = well(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert!(!said.contains("edgeproxy.service"), "{said}");
    let strict = ["security", "--offline=yes", &format!("--threshold={EXPOSURE}")];
    well(Command::new("systemd-analyze").args(strict).arg(packaging("edgeproxy.service")));
}

/// The script that runs behind an installation, where everything that it calls only says that it was called.
struct Installed {
    folder: TempDir,
}

impl Installed {
    fn new(is_active: &str, upgrade: &str) -> Self {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("run")).expect("the folder can be written to");
        let says =
            |name: &str| format!("#!/bin/sh\necho \"{name} $*\" >> {}\n", at("said").display());
        script(
            &at("systemctl"),
            &format!("{}case \"$*\" in *is-active*) {is_active};; esac\n", says("systemctl")),
        );
        script(&at("edgeproxy"), &format!("{}{upgrade}\n", says("edgeproxy")));
        let text = fs::read_to_string(packaging("debian/postinst")).expect("it is shipped");
        let text = text
            .replace("/usr/bin/edgeproxy", &at("edgeproxy").display().to_string())
            .replace("/run/systemd/system", &at("run").display().to_string());
        script(&at("postinst"), &text);
        Self { folder }
    }

    /// What is called when it is run so.
    fn run(&self, arguments: &[&str]) -> Vec<String> {
        let said = self.folder.path().join("said");
        fs::write(&said, "").expect("the folder can be written to");
        let path = std::env::var("PATH").expect("there is a PATH");
        let path = format!("{}:{path}", self.folder.path().display());
        well(Command::new(self.folder.path().join("postinst")).args(arguments).env("PATH", path));
        let said = fs::read_to_string(said).expect("it is there");
        said.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_package_that_replaces_another_one_upgrades_the_running_process() {
    let upgraded = [
        "systemctl daemon-reload",
        "systemctl --quiet is-active edgeproxy.service",
        "edgeproxy upgrade -c /etc/edgeproxy/edge.yaml",
    ];
    assert_eq!(Installed::new("exit 0", "exit 0").run(&["configure", "0.1.0-1"]), upgraded);
    // A process that stays as it is, is no reason to leave a package half installed.
    assert_eq!(Installed::new("exit 0", "exit 1").run(&["configure", "0.1.0-1"]), upgraded);
    // Nothing runs, and nothing ran before.
    assert_eq!(Installed::new("exit 3", "exit 0").run(&["configure", "0.1.0-1"]), upgraded[..2]);
    assert!(Installed::new("exit 0", "exit 0").run(&["configure", ""]).is_empty());
    assert!(Installed::new("exit 0", "exit 0").run(&["abort-upgrade", "0.1.0-1"]).is_empty());
    let other = Installed::new("exit 0", "exit 0");
    fs::remove_dir(other.folder.path().join("run")).expect("it is there");
    assert!(other.run(&["configure", "0.1.0-1"]).is_empty());
}

#[test]
fn the_image_holds_all_that_the_program_needs() {
    let folder = folder();
    let image = folder.path().join("image");
    well(Command::new(packaging("image")).arg(binary()).arg(&image));
    fs::write(
        image.join("etc/edgeproxy/edge.yaml"),
        "listeners: [{address: \"127.0.0.1:8080\"}]\nroutes: [{respond: {status: 204}}]\n",
    )
    .expect("it is ours");
    // A folder as the root of all: nothing of this machine is there.
    let mut inside = Command::new("unshare");
    if !geteuid().is_root() {
        inside.arg("--map-root-user");
    }
    inside.args(["--mount", "chroot"]).arg(&image).arg("/usr/bin/edgeproxy");
    inside.args(["-t", "-c", "/etc/edgeproxy/edge.yaml"]);
    assert!(well(&mut inside).contains("The configuration is valid"));
    for file in ["etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/nsswitch.conf"] {
        assert!(fs::metadata(image.join(file)).is_ok_and(|about| about.len() > 0), "{file}");
    }
}
