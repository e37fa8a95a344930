//! The `jadegate` binary as a process: run to its end, or started and killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use jadegate::client::Client;
use jadegate::config::Config;

pub fn jadegate() -> Command {
    Command::new(env!("CARGO_BIN_EXE_jadegate"))
}

/// Runs a command to its end; gives exit code, standard output and standard error.
pub fn run(args: &[&str]) -> (i32, String, String) {
    ended(&jadegate().args(args).stdin(Stdio::null()).output().unwrap())
}

pub fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// The most memory that this process ever held.
pub fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A running `jadegate`; killed when it is dropped.
pub struct Serving {
    child: Child,
    output: PathBuf,
}

impl Serving {
    /// Starts `serve`.
    pub fn spawn(config: &Path, output: &Path, environment: &[(&str, &str)]) -> Self {
        Self::command(&["serve", "--config", config.to_str().unwrap()], output, environment)
    }

    /// Starts `serve` under strace, which is told what to write down or to do to the process; it is this process's child, not
    /// strace's.
    pub fn spawn_traced(strace: &[String], config: &Path, output: &Path) -> Self {
        Self::command_traced(strace, &["serve", "--config", config.to_str().unwrap()], output)
    }

    /// Starts any command in that way.
    pub fn command_traced(strace: &[String], args: &[&str], output: &Path) -> Self {
        let mut command = Command::new("strace");
        command.arg("-D").args(strace).arg(env!("CARGO_BIN_EXE_jadegate")).args(args);
        Self::started(command, output)
    }

    /// Starts any command; what it writes goes to files in `output`, one after the other.
    pub fn command(args: &[&str], output: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = jadegate();
        command.args(args).envs(environment.iter().copied());
        Self::started(command, output)
    }

    fn started(mut command: Command, output: &Path) -> Self {
        std::fs::create_dir_all(output).unwrap();
        let open = |name: &str| File::options().create(true).append(true).open(output.join(name)).unwrap();
        command.stdin(Stdio::null()).stdout(open("stdout")).stderr(open("stderr"));
        let child = command.spawn().unwrap_or_else(|e| {
            panic!("{:?} cannot be started ({e}); scripts/test installs what tests need", command.get_program())
        });
        Self { child, output: output.to_owned() }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(config: &Path, output: &Path, environment: &[(&str, &str)]) -> Self {
        let mut serving = Self::spawn(config, output, environment);
        serving.ready(config).await;
        serving
    }

    /// Waits until it is ready; it must not end before.
    pub async fn ready(&mut self, config: &Path) {
        let ready = self.ready_or_ended(config).await;
        assert!(ready, "serve ended: {}", self.wrote());
    }

    /// Waits until it is ready, or has ended before that.
    pub async fn ready_or_ended(&mut self, config: &Path) -> bool {
        let web = Config::read(config).unwrap().web_base;
        let mut client = Client::new(&web, None).unwrap().patience(Duration::from_secs(2));
        for _ in 0..600 {
            if client.get("/readyz").await.is_ok_and(|r| r.status == 200) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("serve did not become ready: {}", self.wrote());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until strace, which outlives the process a little, has written everything down.
    pub async fn recorded(&self, trace: &Path) {
        let ends = |text: &[u8]| text.ends_with(b"+++ killed by SIGKILL +++\n");
        let main = format!("{} ", self.child.id());
        for _ in 0..400 {
            let text = std::fs::read(trace).unwrap();
            let last = text.rsplit(|byte| *byte == b'\n').nth(1).unwrap_or_default();
            if ends(&text) && last.starts_with(main.as_bytes()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("strace did not come to an end");
    }

    /// What of its memory is resident.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, at most so long.
    pub async fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        let until = tokio::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if tokio::time::Instant::now() > until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that it and its predecessors wrote.
    pub fn wrote(&self) -> String {
        let read = |name: &str| std::fs::read(self.output.join(name)).unwrap();
        String::from_utf8_lossy(&[read("stdout"), read("stderr")].concat()).into_owned()
    }

    /// Waits until it has written this.
    pub async fn writes(&self, what: &str, times: usize) {
        for _ in 0..400 {
            if self.wrote().matches(what).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("never wrote {what:?}: {}", self.wrote());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _likewise = self.child.wait();
    }
}
