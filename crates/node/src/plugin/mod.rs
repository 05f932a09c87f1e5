//! The CNI plugin: reads environment and standard input, asks the agent, writes a result or an error.
//!
//! The types of the CNI specification that it needs are a few structs of its own ([`config`], [`result`]): the plugin reads
//! four fields of the configuration and writes one shape of result, and a crate of the whole specification would decide
//! for us which versions there are and which errors a bad input gives.
//!
//! DEL while the agent is down fails with code 11: the kubelet repeats it until it succeeds, and the agent, which comes
//! back, also finds by itself what was left behind.

pub mod config;
pub mod result;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use config::{Command, Environment, NetConf};

use crate::protocol::{self, Failure, Request, Response, code};

/// How long the agent may take. Its own limits are shorter, so that it is the one that says what it waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// Runs the plugin with this process's environment, standard input and output.
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().read_to_end(&mut input);
    let outcome = read
        .map_err(|error| failure(code::IO, "failed to read the configuration", error))
        .map_err(|failure| (result::CURRENT.to_owned(), failure))
        .and_then(|_| run(&|name| std::env::var(name).ok(), &input));
    let (text, exit) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err((version, failure)) => (result::error(&version, &failure), ExitCode::FAILURE),
    };
    let written = io::stdout().write_all(text.as_bytes());
    if let Err(error) = written {
        eprintln!("failed to write the result: {error}");
        return ExitCode::FAILURE;
    }
    exit
}

/// Runs one command: `variable` looks up the environment, `input` is the configuration. What it returns is for standard
/// output; an error comes with the version to report it in.
///
/// # Errors
/// Every [`Failure`] of the CNI specification that applies.
pub fn run(
    variable: &dyn Fn(&str) -> Option<String>,
    input: &[u8],
) -> Result<String, (String, Failure)> {
    let current = |failure| (result::CURRENT.to_owned(), failure);
    let environment = Environment::new(variable);
    let command = environment.command().map_err(current)?;
    let conf = match command {
        Command::Del => NetConf::of_del(input),
        _ => NetConf::parse(input).map_err(current)?,
    };
    let version = conf.cni_version.clone();
    if command == Command::Version {
        return Ok(result::versions(&version));
    }
    answer(command, &environment, &conf)
        .map_err(|failure| (result::reporting(&version).to_owned(), failure))
}

fn answer(
    command: Command,
    environment: &Environment<'_>,
    conf: &NetConf,
) -> Result<String, Failure> {
    if command != Command::Del {
        conf.check_version(command)?;
    }
    let request = request(command, environment, conf)?;
    match ask(conf, command, &request)? {
        Response::Wired(wiring) => {
            let Request::Add { id, .. } = &request else {
                return Err(unexpected());
            };
            Ok(result::added(
                &conf.cni_version,
                &wiring,
                &id.ifname,
                &environment.netns()?,
                conf.dns.as_ref(),
            ))
        }
        Response::Done if command == Command::Add => Err(unexpected()),
        Response::Done => Ok(String::new()),
        Response::Failed(failure) => Err(failure),
    }
}

fn request(
    command: Command,
    environment: &Environment<'_>,
    conf: &NetConf,
) -> Result<Request, Failure> {
    Ok(match command {
        Command::Add => Request::Add {
            id: environment.attachment()?,
            netns: resolved(environment.netns()?),
            pod: environment.pod()?,
            host_ports: conf.host_ports()?,
        },
        Command::Del => Request::Del {
            id: environment.attachment()?,
        },
        Command::Check => Request::Check {
            id: environment.attachment()?,
            netns: resolved(environment.netns()?),
            addresses: conf.previous_addresses()?,
        },
        Command::Gc => Request::Gc {
            valid: conf.valid_attachments()?,
        },
        Command::Status | Command::Version => Request::Status,
    })
}

/// The path without symbolic links, as the host has them: `/var/run` is one to `/run`, and the agent's container has only
/// the latter.
fn resolved(netns: String) -> String {
    match std::fs::canonicalize(&netns) {
        Ok(path) => path.to_string_lossy().into_owned(),
        Err(_) => netns,
    }
}

fn ask(conf: &NetConf, command: Command, request: &Request) -> Result<Response, Failure> {
    let away = match command {
        Command::Status => code::UNAVAILABLE,
        _ => code::TRY_AGAIN,
    };
    let path = &conf.socket;
    let mut stream = UnixStream::connect(path).map_err(|error| {
        let msg = format!("failed to reach the agent ycloud-cni at {path}");
        failure(
            away,
            &msg,
            format!("{error}; is its Pod running on this node?"),
        )
    })?;
    let mut exchange = || -> io::Result<Response> {
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        protocol::write(&mut stream, request)?;
        protocol::read(&mut stream)
    };
    exchange().map_err(|error| failure(away, "failed to get an answer from the agent", error))
}

fn unexpected() -> Failure {
    failure(
        code::FAILED,
        "failed to understand the agent",
        "its answer does not fit the request; plugin and agent are of different versions",
    )
}

fn failure(code: u32, msg: &str, details: impl ToString) -> Failure {
    Failure {
        code,
        msg: msg.to_owned(),
        details: details.to_string(),
    }
}
