//! A real etcd for the tests that compare with it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

pub(crate) struct RealEtcd {
    process: Child,
    log: BufReader<ChildStderr>,
    client: String,
    /// What it has logged.
    pub(crate) said: String,
}

impl RealEtcd {
    /// Starts one on a folder with two ports from `port` on; says so and gives `None` without one.
    pub(crate) fn start(data_dir: &Path, port: u16) -> Option<Self> {
        let [client, peer] = [port, port + 1].map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new("etcd")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut process) = process else {
            println!("skipped: no etcd on the PATH");
            return None;
        };
        let log = BufReader::new(process.stderr.take().unwrap());
        Some(Self { process, log, client, said: String::new() })
    }

    /// Waits until it serves, or ends.
    pub(crate) fn is_ready(&mut self) -> bool {
        loop {
            let before = self.said.len();
            if self.log.read_line(&mut self.said).unwrap() == 0 {
                return false;
            }
            if self.said[before..].contains("ready to serve client requests") {
                return true;
            }
        }
    }

    /// What `etcdctl` prints.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .args(["--endpoints", &self.client])
            .args(arguments)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
