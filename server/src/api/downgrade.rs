//! What may be asked of a downgrade: the version as etcd reads it, and whether it is one below ours.
//!
//! ```text
//! "3.6" "3.6.9" "3.6.0-rc.1"   the version before 3.7: the only one that etcd would go to
//! "3.5" "3.7" "4.0"            invalid target
//! "3" "v3.6" "3.6+1" ""        not a version
//! ```

use super::admin_errors::AdminRefusal;

/// Whether `target` is the one minor version that a cluster of `current` (like `3.7.0`) may go back to.
///
/// # Errors
/// It is no version, or another one.
pub(crate) fn check_target(target: &str, current: &str) -> Result<(), AdminRefusal> {
    let target = parse(target)
        .or_else(|| parse(&format!("{target}.0")))
        .ok_or(AdminRefusal::WrongDowngradeVersion)?;
    let (major, minor) = parse(current).expect("our own version is one");
    if target == (major, minor - 1) { Ok(()) } else { Err(AdminRefusal::InvalidDowngradeTarget) }
}

/// Major and minor number of a semantic version with three numbers.
fn parse(text: &str) -> Option<(i64, i64)> {
    let (text, metadata) = text.split_once('+').unwrap_or((text, ""));
    let (numbers, pre_release) = text.split_once('-').unwrap_or((text, ""));
    let is_sign = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_identifier = |text: &str| {
        text.is_empty() || text.split('.').all(|part| !part.is_empty() && part.bytes().all(is_sign))
    };
    if !is_identifier(metadata) || !is_identifier(pre_release) {
        return None;
    }
    let mut numbers = numbers.splitn(3, '.').map(|number| {
        Some(number).filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    });
    let (major, minor, _patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        // Each read from etcd 3.7.3.
        let wrong = ["", "3", "x", "3.x", "v3.6", " 3.6", "-1.2", "3.6+1", "3.-6.0", "3.6.0-a..b"];
        for target in wrong {
            let found = check_target(target, "3.7.0");
            assert_eq!(found, Err(AdminRefusal::WrongDowngradeVersion), "{target:?}");
        }
        for target in ["3.7", "3.7.0", "3.8", "3.5", "4.0", "0.0"] {
            let found = check_target(target, "3.7.0");
            assert_eq!(found, Err(AdminRefusal::InvalidDowngradeTarget), "{target:?}");
        }
        for target in ["3.6", "3.6.0", "3.6.9", "03.6", "3.6.0-alpha", "3.6.0+1", "3.6.0-"] {
            assert_eq!(check_target(target, "3.7.0"), Ok(()), "{target:?}");
        }
    }
}
