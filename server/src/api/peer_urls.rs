//! The peer URLs of a member that is to be added, as etcd reads them.
//!
//! More is admitted than on the command line: any text for a Unix socket, a port that is too large, a
//! user. So [`config::Url`](crate::config) is of no use here, where a refusal has to be the same.

use std::net::Ipv6Addr;

use super::admin_errors::AdminRefusal;

/// The URLs as they would be stored: trimmed and sorted.
///
/// # Errors
/// There is none, or one is not a URL of a member.
pub(crate) fn read(urls: &[String]) -> Result<Vec<String>, AdminRefusal> {
    let read = urls.iter().map(|url| read_one(url.trim()));
    let mut read = read.collect::<Option<Vec<_>>>().ok_or(AdminRefusal::MemberBadUrls)?;
    if read.is_empty() {
        return Err(AdminRefusal::MemberBadUrls);
    }
    read.sort_unstable();
    Ok(read)
}

fn read_one(url: &str) -> Option<String> {
    if url.bytes().any(|b| b.is_ascii_control()) {
        return None;
    }
    let (scheme, rest) = url.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "unix" | "unixs" => {}
        "http" | "https" => {
            let authority = rest.strip_prefix("//")?;
            let authority = authority.split(['?', '#']).next().unwrap_or(authority);
            let host_port = authority.rsplit('@').next().unwrap_or(authority);
            if authority.contains('/') || !is_host_port(host_port) {
                return None;
            }
        }
        _ => return None,
    }
    Some(format!("{scheme}:{rest}"))
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_one = match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.contains([':', '[', ']', ' ', '%']),
    };
    host_is_one && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_and_refused_as_by_etcd() {
        // Each read from etcd 3.7.3, which names what it takes "already exists" or adds it.
        for url in [
            "http://127.0.0.1:1",
            "HTTP://a.b:1",
            " http://a:1 ",
            "http://:1",
            "http://a:",
            "http://a:99999",
            "http://u@a:1",
            "http://[::1]:5",
            "http://a:1?x",
            "http://a:1#f",
            "http://a_b:1",
            "unix:",
            "unix://a",
            "unixs:x",
        ] {
            assert!(read(&[url.to_owned()]).is_ok(), "{url}");
        }
        for url in [
            "",
            "x",
            "unix",
            "http://a",
            "http://a:x",
            "http://a:1/",
            "http://::1:5",
            "http://[x]:5",
            "http://[::1:5",
            "http://%41:1",
            "http://a b:1",
            "ftp://a:1",
            "http:a:1",
        ] {
            assert_eq!(read(&[url.to_owned()]), Err(AdminRefusal::MemberBadUrls), "{url}");
        }
        assert_eq!(read(&[]), Err(AdminRefusal::MemberBadUrls));
        let sorted = read(&["http://b:1".into(), "HTTP://a:1".into()]);
        assert_eq!(sorted, Ok(vec!["http://a:1".into(), "http://b:1".into()]));
    }
}
