//! `--feature-gates`: etcd's gates, each with what this version makes of it.

use super::ConfigError;
use super::settings::Settings;

/// The setting that this reads.
const NAME: &str = "feature-gates";

/// What is to be said about a gate that is moved from its default.
enum Moved {
    /// It changes nothing here.
    NoEffect,
    /// What it asks for is not there.
    NotYet,
    /// It does what it says.
    Used,
}

/// The gates that mean something here.
pub(super) struct Gates {
    /// `LeaseCheckpoint`. On, where etcd's default is off: a lease would live up to twice its time.
    pub(super) lease_checkpoint: bool,
}

/// How far etcd is with a feature.
const ALPHA: &str = "ALPHA";
const BETA: &str = "BETA";

const GATES: [(&str, &str, bool, Moved); 11] = [
    ("AllAlpha", ALPHA, false, Moved::NotYet),
    ("AllBeta", BETA, false, Moved::NoEffect),
    ("CompactHashCheck", ALPHA, false, Moved::NotYet),
    ("FastLeaseKeepAlive", BETA, true, Moved::NoEffect),
    ("InitialCorruptCheck", ALPHA, false, Moved::NotYet),
    ("LeaseCheckpoint", ALPHA, true, Moved::Used),
    // What is left of a lease is stored whenever it is written down.
    ("LeaseCheckpointPersist", ALPHA, true, Moved::NoEffect),
    ("PriorityRequest", ALPHA, false, Moved::NotYet),
    ("SetMemberLocalAddr", ALPHA, false, Moved::NotYet),
    ("StopGRPCServiceOnDefrag", ALPHA, false, Moved::NoEffect),
    ("TxnModeWriteWithSharedBuffer", BETA, true, Moved::NoEffect),
];

/// A gate: its name, its stage, and whether it is on.
type Gate = (&'static str, &'static str, bool);

/// Reads the list and returns all gates; sentences for those without effect go to `notices`.
pub(super) fn read(
    settings: &Settings,
    notices: &mut Vec<String>,
) -> Result<(Gates, Vec<Gate>), ConfigError> {
    let label = settings.label(NAME);
    let mut used = Gates { lease_checkpoint: true };
    let mut gates: Vec<Gate> =
        GATES.iter().map(|(name, stage, default, _)| (*name, *stage, *default)).collect();
    for item in settings.text(NAME).split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let parsed = item
            .split_once('=')
            .and_then(|(name, value)| Some((name, super::value::boolean(value)?)));
        let Some((name, value)) = parsed else {
            return Err(ConfigError::usage(format!(
                "{label} has {item:?}, but must be a list of Feature=true or Feature=false"
            )));
        };
        let Some(place) = GATES.iter().position(|(gate, ..)| *gate == name) else {
            let names: Vec<&str> = GATES.iter().map(|(gate, ..)| *gate).collect();
            return Err(ConfigError::usage(format!(
                "{label} has no feature {name:?}: there are {}",
                names.join(", ")
            )));
        };
        let (.., default, moved) = &GATES[place];
        gates[place].2 = value;
        match moved {
            Moved::Used => used.lease_checkpoint = value,
            _ if value == *default => {}
            Moved::NoEffect => notices.push(format!("{label} {item} has no effect")),
            Moved::NotYet => {
                return Err(ConfigError::invalid(format!(
                    "{label} {item} is not supported yet: leave it at {default}"
                )));
            }
        }
    }
    Ok((used, gates))
}
