//! Runs files of cases, and writes them anew from an etcd.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::report;
use super::script::{Block, Case, Script};
use super::session::Session;
use super::step;
use crate::process::{Kind, Program};

/// Where the cases run.
#[derive(Clone, Debug)]
pub enum Place {
    /// A server that runs, and is emptied.
    Url(String),
    /// A server that is started for each file.
    Program(Program),
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every reply was as expected.
    Passed,
    /// What was different.
    Failed(String),
    /// Why it could not run here.
    Skipped(&'static str),
    /// What Quorate has to learn first.
    Later(&'static str),
}

/// How the cases of a file ended, in order.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The file's name.
    pub name: String,
    /// By case.
    pub verdicts: Vec<Verdict>,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The verdicts.
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub later: usize,
}

impl Outcome {
    /// How many cases ended how.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for verdict in &self.verdicts {
            let count = match verdict {
                Verdict::Passed => &mut counts.passed,
                Verdict::Failed(_) => &mut counts.failed,
                Verdict::Skipped(_) => &mut counts.skipped,
                Verdict::Later(_) => &mut counts.later,
            };
            *count += 1;
        }
        counts
    }

    /// The cases that did not run, each with the reason.
    pub fn not_run(&self, script: &Script) -> Vec<String> {
        let line = |(case, verdict): (&Case, &Verdict)| {
            let reason = match verdict {
                Verdict::Skipped(reason) => (*reason).to_owned(),
                Verdict::Later(need) => format!("later, it needs {need}"),
                Verdict::Passed | Verdict::Failed(_) => return None,
            };
            Some(format!("{}.txt:{}: {}: {reason}", script.name, case.line, case.title))
        };
        script.cases.iter().zip(&self.verdicts).filter_map(line).collect()
    }

    /// The differences of all cases that failed.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Failed(difference) => Some(difference.as_str()),
            _ => None,
        })
    }
}

/// The folder of the cases in the source tree.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// All files of a folder but the list of claims, by name.
///
/// # Errors
/// When one cannot be read or is no script.
pub fn scripts(folder: &Path) -> anyhow::Result<Vec<Script>> {
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name != "ids" && path.extension().is_some_and(|extension| extension == "txt") {
            scripts.push(Script::parse(&name, &std::fs::read_to_string(&path)?)?);
        }
    }
    scripts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scripts)
}

/// Runs the cases of a file.
///
/// # Errors
/// When a server cannot be started or reached.
pub async fn run(script: &Script, place: &Place) -> anyhow::Result<Outcome> {
    let mut session = None;
    let mut verdicts = Vec::new();
    for case in &script.cases {
        if let (Place::Program(Program { kind: Kind::Quorate, .. }), Some(need)) =
            (place, case.later)
        {
            verdicts.push(Verdict::Later(need));
            continue;
        }
        let verdict = match ready(&mut session, script, case, place).await? {
            Err(reason) => Verdict::Skipped(reason),
            Ok(session) => match differences(session, script, case).await {
                Ok(None) => Verdict::Passed,
                Ok(Some(difference)) => Verdict::Failed(difference),
                Err(error) => Verdict::Failed(report::broken(script, case, &error)),
            },
        };
        if matches!(verdict, Verdict::Failed(_)) && matches!(place, Place::Program(_)) {
            // Whatever went wrong stays with this case.
            session = None;
        }
        verdicts.push(verdict);
    }
    Ok(Outcome { name: script.name.clone(), verdicts })
}

/// Runs the cases of a file on an etcd, and takes its replies as what is expected.
///
/// # Errors
/// When a case cannot run there; then nothing is written.
pub async fn update(script: &mut Script, place: &Place) -> anyhow::Result<()> {
    let mut session = None;
    for case in script.cases.clone() {
        let label = format!("{}.txt:{}: {}", script.name, case.line, case.title);
        let ready = ready(&mut session, script, &case, place).await?;
        let session = ready.map_err(anyhow::Error::msg).with_context(|| label.clone())?;
        session.begin(&case).await.with_context(|| label.clone())?;
        for at in case.blocks.clone() {
            let Block::Step(written) = &mut script.blocks[at] else { continue };
            let replies = step::run(session, &written.input).await;
            written.expected = replies.with_context(|| label.clone())?;
        }
    }
    Ok(())
}

/// A session that the case can run on, or why there is none.
async fn ready<'a>(
    session: &'a mut Option<Session>,
    script: &Script,
    case: &Case,
    place: &Place,
) -> anyhow::Result<Result<&'a mut Session, &'static str>> {
    let is_used = match session {
        Some(session) if case.needs_fresh => session.revision().await? != 1,
        _ => false,
    };
    match place {
        Place::Program(program) => {
            if session.is_none() || is_used {
                let flags: Vec<&str> = script.flags.iter().map(String::as_str).collect();
                *session = Some(Session::start(&program.clone().with(&flags)).await?);
            }
        }
        Place::Url(_) if is_used => return Ok(Err("needs a store that nobody has written")),
        Place::Url(_) if case.needs_restart => return Ok(Err("needs a server that can be killed")),
        Place::Url(_) if case.later.is_some() => {
            return Ok(Err("changes the members or the version, and this may be a Quorate"));
        }
        Place::Url(_) if !script.flags.is_empty() => {
            return Ok(Err("needs a server with flags of its own"));
        }
        Place::Url(url) => {
            if session.is_none() {
                *session = Some(Session::connect(url).await?);
                if let Some(connected) = session
                    && case.needs_fresh
                    && connected.revision().await? != 1
                {
                    return Ok(Err("needs a store that nobody has written"));
                }
            }
        }
    }
    Ok(session.as_mut().ok_or("cannot happen: a session was opened above"))
}

/// The first difference of a case.
async fn differences(
    session: &mut Session,
    script: &Script,
    case: &Case,
) -> anyhow::Result<Option<String>> {
    session.begin(case).await?;
    for step in script.steps(case) {
        let replies = match step::run(session, &step.input).await {
            Ok(replies) => replies,
            Err(error) => {
                session.check_running()?;
                return Err(error);
            }
        };
        if replies != step.expected {
            return Ok(Some(report::difference(script, case, step, &replies)));
        }
    }
    Ok(None)
}
