//! Real ovsdb-servers in temporary folders.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

pub mod cluster;
pub mod proxy;
pub mod schema;

/// A folder with one server, or several, each a child that is killed when this is dropped.
pub struct Server {
    pub dir: PathBuf,
    pub socket: PathBuf,
    database: PathBuf,
    extra: Vec<String>,
    child: Option<Child>,
}

pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {} {error}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl Server {
    /// A standalone server of the given schema in `dir/name`, listening on a unix socket.
    pub fn standalone(dir: &Path, schema: &Path) -> Result<Server> {
        let mut server = Server::prepare(dir, schema)?;
        server.start()?;
        Ok(server)
    }

    /// The same, not started yet.
    pub fn prepare(dir: &Path, schema: &Path) -> Result<Server> {
        fs::create_dir_all(dir)?;
        let database = dir.join("db");
        run("ovsdb-tool", &["create", text(&database), text(schema)])?;
        Ok(Server::over(dir, database))
    }

    /// A server over a database file that is there.
    pub fn over(dir: &Path, database: PathBuf) -> Server {
        Server {
            dir: dir.to_owned(),
            socket: dir.join("db.sock"),
            database,
            extra: Vec::new(),
            child: None,
        }
    }

    /// Listens there too, and other options.
    pub fn with(mut self, arguments: &[&str]) -> Server {
        self.extra
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let child = Command::new("ovsdb-server")
            .arg(format!("--remote=punix:{}", self.socket.display()))
            .arg(format!("--unixctl={}", self.dir.join("ctl").display()))
            .arg(format!("--log-file={}", self.dir.join("log").display()))
            .args(["--no-chdir", "-vconsole:off", "-vfile:info"])
            .args(&self.extra)
            .arg(&self.database)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start ovsdb-server")?;
        self.child = Some(child);
        let socket = self.socket.clone();
        eventually(&format!("{} answers", socket.display()), || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })
    }

    /// Kills it without warning.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        fs::remove_file(&self.socket).ok();
        Ok(())
    }

    /// Stops it in its tracks; what it serves stays connected.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        run("kill", &[&format!("-{signal}"), &child.id().to_string()])?;
        Ok(())
    }

    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-t", text(&self.dir)];
        let ctl = self.dir.join("ctl");
        all[1] = text(&ctl);
        all.extend(arguments);
        run("ovs-appctl", &all)
    }

    pub fn unix(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// `transact` by the reference client.
    pub fn transact(&self, json: &str) -> Result<String> {
        run("ovsdb-client", &["transact", &self.unix(), json])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!(
                "failed to kill ovsdb-server in {}: {error:#}",
                self.dir.display()
            );
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Waits until something holds; fails after 30 s.
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > Duration::from_secs(30) {
            bail!("not within 30 s: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A free port of the loopback.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

/// Fails rather than hangs.
pub async fn within<T>(seconds: u64, what: &str, work: impl Future<Output = T>) -> Result<T> {
    let limit = Duration::from_secs(seconds);
    tokio::time::timeout(limit, work)
        .await
        .with_context(|| format!("not within {seconds} s: {what}"))
}
