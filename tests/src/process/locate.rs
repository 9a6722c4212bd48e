//! Where the binaries are.
//!
//! `quorate` is the one that cargo builds into the folder of the running executable. Tests have it
//! built first ([`built_quorate`]), so that they never test an old one; the benchmarks only look
//! ([`quorate`]), because there a person chose the build.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

/// The `quorate` of the running executable's profile, or the one that was named.
///
/// # Errors
/// When there is none; the text says how to build it.
pub fn quorate(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = named {
        if path.is_file() {
            return Ok(path.to_owned());
        }
        bail!("there is no quorate at {}", path.display());
    }
    let folder = profile_folder()?;
    let path = folder.join("quorate");
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "there is no quorate in {}: build it with `cargo build {} -p quorate-server`, or name one \
         with --quorate PATH",
        folder.display(),
        profile_flag(&folder),
    )
}

/// Has cargo build `quorate` with the profile and target folder of the running test, once.
///
/// # Errors
/// When cargo fails; the text holds what it said.
pub fn built_quorate() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build_quorate().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build_quorate() -> anyhow::Result<PathBuf> {
    let folder = profile_folder()?;
    let target = folder.parent().context("a profile's folder is in a target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "-p", "quorate-server", "--bin", "quorate"])
        .arg(profile_flag(&folder))
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot build quorate:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    quorate(None)
}

/// The first executable file of this name on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A tool that `test` needs, or `None` after the line that says that the test was skipped.
pub fn tool(name: &str, test: &str) -> Option<PathBuf> {
    let path = on_path(name);
    if path.is_none() {
        // Not by `println!`, of which the test runner hides what a passing test says.
        let line = format!("skipped: {test}: there is no {name} on the PATH\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    path
}

/// `target/debug` or `target/release`: the parent of `deps` for a test, else of the executable.
fn profile_folder() -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().context("an executable is in a folder")?;
    Ok(match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().context("deps is in a folder")?.to_owned(),
        _ => folder.to_owned(),
    })
}

fn profile_flag(folder: &Path) -> String {
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "--profile=dev".to_owned(),
        Some(profile) => format!("--profile={profile}"),
    }
}
