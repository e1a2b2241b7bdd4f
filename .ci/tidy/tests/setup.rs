//! `setup/install` on machines that lack something: each is told what, and what to do.
//!
//! The machines are made up: a PATH of a few real tools beside a cargo, a compiler and a Python that
//! only pretend.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const TOOLS: [&str; 19] = [
    "awk",
    "bash",
    "cat",
    "cp",
    "cut",
    "dirname",
    "flock",
    "getconf",
    "grep",
    "head",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "sha256sum",
    "sort",
    "tail",
    "touch",
    "uname",
];

/// Answers what set-up asks of a Python; `$PIP` says how its pip fares.
const PYTHON: &str = r#"#!/bin/bash
echo "$*" >> "$CALLS"
case "$*" in
    *sys.version_info*) echo "${VERSION:-3.11}" ;;
    *"import ensurepip"*) [ -z "$NO_ENSUREPIP" ] ;;
    *sysconfig*) echo site ;;
    *forget_broken*) echo "forgot broken packages" ;;
    *"-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    *"-m pip --version"*) [ -z "$NO_PIP" ] ;;
    --version) echo "Python ${VERSION:-3.11}.0" ;;
    *"-m pip"*)
        log=$(sed 's/.*--log \([^ ]*\).*/\1/' <<<"$*")
        case "$PIP" in
            "") ;;
            killed) kill -9 $PPID ;;
            *) echo "$PIP" >> "$log"; exit 1 ;;
        esac ;;
esac
"#;

#[test]
fn a_complete_machine_installs_once() {
    let machine = Machine::new("complete");
    let (code, said) = machine.set_up(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        machine.calls().contains("requirements.txt")
            && !machine.calls().contains("requirements-test.txt")
    );

    machine.forget_calls();
    let (code, said) = machine.set_up(&[]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert_eq!(
        machine.calls(),
        "",
        "the second time nothing is asked of Python"
    );
}

#[test]
fn a_set_up_that_was_killed_goes_on_and_mends_what_is_half_unpacked() {
    let machine = Machine::new("killed");
    machine.set_up(&[("PIP", "killed")]);

    let (code, said) = machine.set_up(&[]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("interrupted") && said.contains("forgot broken packages"),
        "{said}"
    );
}

#[test]
fn without_a_network_it_says_so_and_that_it_may_be_tried_again() {
    let machine = Machine::new("offline");
    let error =
        "Retrying after connection broken by 'NewConnectionError': Name or service not known";
    refuses(
        &machine,
        &[("PIP", error)],
        75,
        &["cannot be reached", "it goes on from here"],
    );
}

#[test]
fn a_full_disk_is_noticed_before_and_during_the_download() {
    let machine = Machine::new("full");
    let error = "OSError: [Errno 28] No space left on device";
    refuses(
        &machine,
        &[("PIP", error)],
        75,
        &["the disk is full", "HGAT_HOME"],
    );

    let machine = Machine::new("nearly-full");
    machine.tool(
        "df",
        "#!/bin/bash\necho header\necho disk 9 9 3000000 1% /\n",
    );
    refuses(&machine, &[], 75, &["2 GB free", "needs 8 GB", "HGAT_HOME"]);
}

#[test]
fn a_python_without_wheels_is_named() {
    let machine = Machine::new("old-python");
    refuses(
        &machine,
        &[("VERSION", "3.9")],
        64,
        &["python3 is 3.9", "3.10 to 3.14", "PYTHON="],
    );
    let error = "ERROR: No matching distribution found for torch==2.11.0";
    refuses(
        &machine,
        &[("PIP", error)],
        64,
        &["No matching distribution found for torch==2.11.0", "glibc"],
    );
}

#[test]
fn debian_without_ensurepip_takes_pip_from_the_system_or_is_told_what_to_install() {
    let machine = Machine::new("no-ensurepip");
    let (code, said) = machine.set_up(&[("NO_ENSUREPIP", "1")]);
    assert_eq!(code, 0, "{said}");
    let calls = machine.calls();
    assert!(
        calls.contains("--without-pip") && calls.contains("install --target site pip"),
        "{calls}"
    );

    let machine = Machine::new("no-pip");
    let missing = [("NO_ENSUREPIP", "1"), ("NO_PIP", "1")];
    refuses(
        &machine,
        &missing,
        64,
        &["neither ensurepip nor pip", "apt-get install python3-venv"],
    );
}

#[test]
fn a_missing_compiler_and_a_missing_or_old_cargo_are_named() {
    let machine = Machine::new("no-compiler");
    fs::remove_file(machine.bin("c++")).unwrap();
    refuses(
        &machine,
        &[],
        64,
        &["no C++ compiler", "apt-get install g++"],
    );

    let machine = Machine::new("no-cargo");
    fs::remove_file(machine.bin("cargo")).unwrap();
    refuses(&machine, &[], 64, &["no cargo", "rustup.rs"]);

    let machine = Machine::new("old-cargo");
    machine.tool("cargo", "#!/bin/bash\necho cargo 1.63.0\n");
    refuses(&machine, &[], 64, &["cargo is 1.63.0", "1.95"]);
}

#[test]
fn a_given_libtorch_is_used_if_its_version_fits() {
    let machine = Machine::new("given");
    let given = machine.folder.join("libtorch");
    fs::create_dir_all(given.join("lib")).unwrap();
    let set = [("HGAT_LIBTORCH", given.to_str().unwrap())];
    refuses(
        &machine,
        &set,
        64,
        &["lacks lib/libtorch_cpu.so or include/"],
    );

    fs::create_dir_all(given.join("include")).unwrap();
    fs::write(given.join("lib/libtorch_cpu.so"), "").unwrap();
    fs::write(given.join("build-version"), "2.10.0+cpu\n").unwrap();
    refuses(
        &machine,
        &set,
        64,
        &["version is 2.10.0+cpu", "exactly 2.11.0"],
    );

    fs::write(given.join("build-version"), "2.11.0+cpu\n").unwrap();
    let (code, said) = machine.set_up(&set);
    assert_eq!(code, 0, "{said}");
    assert!(
        !machine.calls().contains("requirements.txt"),
        "no torch is installed"
    );
}

#[test]
fn packages_that_are_not_whole_are_forgotten_and_whole_ones_are_kept() {
    let site = Machine::new("packages").folder.join("site");
    for (name, record) in [
        ("whole-1", "a.py,sha256=x,3"),
        ("cut-1", "a.py,sha256=x,4"),
        ("gone-1", "b.py,,"),
    ] {
        let info = site.join(format!("{name}.dist-info"));
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("RECORD"), format!("{record}\n")).unwrap();
    }
    fs::create_dir_all(site.join("half-1.dist-info")).unwrap();
    fs::write(site.join("a.py"), "abc").unwrap();

    let program = "import sys, pathlib; from forget_broken_packages import forget_broken; \
                   print(*forget_broken(pathlib.Path(sys.argv[1])))";
    let output = Command::new("python3")
        .args(["-B", "-c", program, site.to_str().unwrap()])
        .env("PYTHONPATH", repository().join("setup"))
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "cut-1 gone-1 half-1\n"
    );
    assert!(site.join("whole-1.dist-info").exists());
}

fn refuses(machine: &Machine, set: &[(&str, &str)], code: i32, words: &[&str]) {
    let (got, said) = machine.set_up(set);
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing from:\n{said}");
    }
}

/// A made-up machine that has everything, until a test takes something away.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        let machine = Self { folder };
        for tool in TOOLS {
            let path = std::env::var_os("PATH").unwrap();
            let real = std::env::split_paths(&path)
                .map(|dir| dir.join(tool))
                .find(|file| file.exists());
            symlink(
                real.unwrap_or_else(|| panic!("{tool} is not on PATH")),
                machine.bin(tool),
            )
            .unwrap();
        }
        machine.tool("c++", "#!/bin/bash\n");
        machine.tool("cc", "#!/bin/bash\n");
        machine.tool("cargo", "#!/bin/bash\necho cargo 1.95.0\n");
        machine.tool(
            "df",
            "#!/bin/bash\necho header\necho disk 9 9 90000000 1% /\n",
        );
        machine.tool("python3", PYTHON);
        machine
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn tool(&self, name: &str, script: &str) {
        fs::write(self.bin(name), script).unwrap();
        fs::set_permissions(self.bin(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Exit code (-1 for a signal) and what was said.
    fn set_up(&self, set: &[(&str, &str)]) -> (i32, String) {
        let output = Command::new(repository().join("setup/install"))
            .env_clear()
            .env("PATH", self.folder.join("bin"))
            .env("HGAT_HOME", self.folder.join("home"))
            .env("HOME", &self.folder)
            .env("CALLS", self.folder.join("calls"))
            .envs(set.iter().copied())
            .output()
            .unwrap();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    /// Every command line that Python was called with.
    fn calls(&self) -> String {
        fs::read_to_string(self.folder.join("calls")).unwrap_or_default()
    }

    fn forget_calls(&self) {
        fs::remove_file(self.folder.join("calls")).unwrap();
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
