//! What a container runtime tells the plugin: CNI specification, "Parameters" and "Network configuration format".

use serde::Deserialize;
use serde_json::Value;

use super::result::SUPPORTED;
use crate::host_port::{self, HostPort};
use crate::protocol::{AttachmentId, Failure, PodRef, SOCKET, code};

/// `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Add a container to the network.
    Add,
    /// Remove it.
    Del,
    /// Verify that it is as it was added.
    Check,
    /// Is the plugin ready?
    Status,
    /// Remove what no container uses.
    Gc,
    /// Which versions are supported?
    Version,
}

impl Command {
    /// The first version that has it.
    fn since(self) -> &'static str {
        match self {
            Command::Status | Command::Gc => "1.1.0",
            Command::Check => "0.4.0",
            Command::Add | Command::Del | Command::Version => "0.3.1",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Status => "STATUS",
            Command::Gc => "GC",
            Command::Version => "VERSION",
        }
    }
}

/// The `CNI_*` variables.
pub struct Environment<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Environment<'a> {
    /// `variable` looks one up.
    pub fn new(variable: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { variable }
    }

    fn required(&self, name: &str) -> Result<String, Failure> {
        match (self.variable)(name) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(invalid(format!("{name} is missing"))),
        }
    }

    /// `CNI_COMMAND`.
    ///
    /// # Errors
    /// Missing or unknown.
    pub fn command(&self) -> Result<Command, Failure> {
        match self.required("CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "STATUS" => Ok(Command::Status),
            "GC" => Ok(Command::Gc),
            "VERSION" => Ok(Command::Version),
            other => Err(invalid(format!("CNI_COMMAND {other:?} is unknown"))),
        }
    }

    /// `CNI_CONTAINERID` and `CNI_IFNAME`.
    ///
    /// # Errors
    /// Missing, or not of the form that the specification demands.
    pub fn attachment(&self) -> Result<AttachmentId, Failure> {
        let container = self.required("CNI_CONTAINERID")?;
        let mut characters = container.chars();
        let first = characters.next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !first || !rest {
            return Err(invalid(format!(
                "CNI_CONTAINERID {container:?}: letters, digits, '_', '.' and '-' only, a letter or digit first"
            )));
        }
        let ifname = self.required("CNI_IFNAME")?;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
        if ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.contains(bad) {
            return Err(invalid(format!(
                "CNI_IFNAME {ifname:?}: no interface can have this name"
            )));
        }
        Ok(AttachmentId { container, ifname })
    }

    /// `CNI_NETNS`.
    ///
    /// # Errors
    /// Missing.
    pub fn netns(&self) -> Result<String, Failure> {
        self.required("CNI_NETNS")
    }

    /// The Pod in `CNI_ARGS`.
    ///
    /// # Errors
    /// No namespace or name of a Pod in it.
    pub fn pod(&self) -> Result<PodRef, Failure> {
        let args = (self.variable)("CNI_ARGS").unwrap_or_default();
        let get = |key: &str| {
            args.split(';')
                .filter_map(|pair| pair.split_once('='))
                .find(|(k, v)| *k == key && !v.is_empty())
                .map(|(_, v)| v.to_owned())
        };
        let need = |key: &str| {
            get(key).ok_or_else(|| invalid(format!("CNI_ARGS has no {key}; only Pods are wired")))
        };
        Ok(PodRef {
            namespace: need("K8S_POD_NAMESPACE")?,
            name: need("K8S_POD_NAME")?,
            uid: get("K8S_POD_UID"),
        })
    }
}

/// The configuration, as far as the plugin reads it.
#[derive(Debug, Clone, Deserialize)]
pub struct NetConf {
    /// Version of the configuration and of the result.
    #[serde(rename = "cniVersion", default)]
    pub cni_version: String,
    /// Where the agent listens. Default: [`SOCKET`].
    #[serde(default = "default_socket")]
    pub socket: String,
    /// Passed on into the result.
    #[serde(default)]
    pub dns: Option<Value>,
    #[serde(rename = "prevResult", default)]
    previous: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    valid: Option<Value>,
    /// What the runtime adds for the capabilities that the configuration has.
    #[serde(rename = "runtimeConfig", default)]
    runtime: Option<Value>,
}

/// CNI conventions, `portMappings`. containerd 1.6 writes the names with a capital first letter: the reference plugin, in
/// Go, reads either.
#[derive(Debug, Clone, Deserialize)]
struct PortMapping {
    #[serde(alias = "HostPort", rename = "hostPort")]
    host_port: u16,
    #[serde(alias = "ContainerPort", rename = "containerPort")]
    container_port: u16,
    #[serde(alias = "Protocol", default)]
    protocol: Option<String>,
    #[serde(alias = "HostIP", rename = "hostIP", default)]
    host_ip: Option<String>,
}

impl PortMapping {
    fn read(&self) -> Result<HostPort, Failure> {
        let name = self.protocol.as_deref().unwrap_or("tcp");
        let protocol = host_port::protocol(name)
            .ok_or_else(|| unusable(&format!("portMappings: protocol {name:?} is unknown")))?;
        let address = match self.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                unusable(&format!("portMappings: hostIP {text:?} is no IP address"))
            })?),
        };
        Ok(HostPort {
            protocol,
            address,
            port: self.host_port,
            container_port: self.container_port,
        })
    }
}

fn default_socket() -> String {
    SOCKET.to_owned()
}

impl NetConf {
    /// Reads standard input.
    ///
    /// # Errors
    /// No JSON object, or one with fields of other types.
    pub fn parse(input: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(input).map_err(|error| Failure {
            code: code::DECODE,
            msg: "failed to decode the network configuration".into(),
            details: error.to_string(),
        })
    }

    /// Reads standard input for DEL, which must leave nothing behind: a runtime does not let go of a Pod before its DEL has
    /// succeeded. It has no result, so no version forbids it, and what it cannot read stands as if it were not there.
    pub fn of_del(input: &[u8]) -> Self {
        let conf: Value = serde_json::from_slice(input).unwrap_or_default();
        let text = |field: &str| conf[field].as_str().map(str::to_owned);
        Self {
            cni_version: text("cniVersion").unwrap_or_default(),
            socket: text("socket").unwrap_or_else(default_socket),
            dns: None,
            previous: None,
            valid: None,
            runtime: None,
        }
    }

    /// Whether the plugin speaks the configuration's version, and that version has the command.
    ///
    /// # Errors
    /// Code 1, naming the versions that would do.
    pub fn check_version(&self, command: Command) -> Result<(), Failure> {
        let position = |version: &str| SUPPORTED.iter().position(|v| *v == version);
        let version = position(&self.cni_version);
        if version.is_some() && version >= position(command.since()) {
            return Ok(());
        }
        let details = match version {
            None => format!("supported are {}", SUPPORTED.join(", ")),
            Some(_) => format!("{} exists since {}", command.name(), command.since()),
        };
        Err(Failure {
            code: code::INCOMPATIBLE_VERSION,
            msg: format!("incompatible CNI version {:?}", self.cni_version),
            details,
        })
    }

    /// The addresses, with prefix length, in `prevResult`.
    ///
    /// # Errors
    /// No `prevResult`, or one that has none.
    pub fn previous_addresses(&self) -> Result<Vec<String>, Failure> {
        let ips = self.previous.as_ref().and_then(|p| p["ips"].as_array());
        let addresses: Vec<String> = ips
            .into_iter()
            .flatten()
            .filter_map(|ip| ip["address"].as_str())
            .map(str::to_owned)
            .collect();
        if addresses.is_empty() {
            return Err(unusable("prevResult with the Pod's addresses is missing"));
        }
        Ok(addresses)
    }

    /// `runtimeConfig.portMappings`, sorted, without those that have no port of the node.
    ///
    /// # Errors
    /// Mappings of another form, a text that is no address, or a protocol without ports.
    pub fn host_ports(&self) -> Result<Vec<HostPort>, Failure> {
        let mappings = self.runtime.as_ref().map(|r| r["portMappings"].clone());
        let mappings: Option<Vec<PortMapping>> = serde_json::from_value(mappings.into())
            .map_err(|error| unusable(&format!("portMappings: {error}")))?;
        let mappings = mappings
            .iter()
            .flatten()
            .filter(|mapping| mapping.host_port > 0);
        let mut ports: Vec<HostPort> = mappings.map(PortMapping::read).collect::<Result<_, _>>()?;
        ports.sort();
        ports.dedup();
        Ok(ports)
    }

    /// `cni.dev/valid-attachments`.
    ///
    /// # Errors
    /// Missing (which must not read as "none is valid"), or of another form.
    pub fn valid_attachments(&self) -> Result<Vec<AttachmentId>, Failure> {
        let valid = self
            .valid
            .clone()
            .ok_or_else(|| unusable("cni.dev/valid-attachments is missing"))?;
        serde_json::from_value(valid)
            .map_err(|error| unusable(&format!("cni.dev/valid-attachments: {error}")))
    }
}

fn invalid(details: String) -> Failure {
    Failure {
        code: code::INVALID_ENVIRONMENT,
        msg: "invalid environment variables".into(),
        details,
    }
}

fn unusable(details: &str) -> Failure {
    Failure {
        code: code::INVALID_CONFIG,
        msg: "invalid network configuration".into(),
        details: details.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> NetConf {
        NetConf::parse(text.as_bytes()).unwrap()
    }

    fn with<T>(variables: &[(&str, &str)], read: impl FnOnce(&Environment<'_>) -> T) -> T {
        let find = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        read(&Environment::new(&find))
    }

    #[test]
    fn a_version_has_the_commands_that_it_has() {
        use Command::{Add, Check, Del, Gc, Status};
        let cases: [(&str, &[Command], &[Command]); 6] = [
            ("", &[], &[Add, Del, Check, Status, Gc]),
            ("0.2.0", &[], &[Add, Del]),
            ("0.3.1", &[Add, Del], &[Check, Status, Gc]),
            ("0.4.0", &[Add, Del, Check], &[Status, Gc]),
            ("1.0.0", &[Add, Del, Check], &[Status, Gc]),
            ("1.1.0", &[Add, Del, Check, Status, Gc], &[]),
        ];
        for (version, has, lacks) in cases {
            let conf = conf(&format!(r#"{{"cniVersion":"{version}","name":"n"}}"#));
            for command in has {
                assert!(
                    conf.check_version(*command).is_ok(),
                    "{version} {command:?}"
                );
            }
            for command in lacks {
                let failure = conf.check_version(*command).unwrap_err();
                assert_eq!(
                    failure.code,
                    code::INCOMPATIBLE_VERSION,
                    "{version} {command:?}"
                );
            }
        }
    }

    #[test]
    fn the_environment_is_checked() {
        let good = [("CNI_CONTAINERID", "a.b-C_1"), ("CNI_IFNAME", "eth0")];
        assert!(with(&good, |e| e.attachment()).is_ok());
        let bad = [
            ("", "eth0"),
            ("-a", "eth0"),
            ("a/b", "eth0"),
            ("a", ""),
            ("a", ".."),
            ("a", "a b"),
            ("a", "eth/0"),
            ("a", "sixteen-letters-"),
        ];
        for (container, ifname) in bad {
            let variables = [("CNI_CONTAINERID", container), ("CNI_IFNAME", ifname)];
            let failure = with(&variables, |e| e.attachment()).unwrap_err();
            assert_eq!(
                failure.code,
                code::INVALID_ENVIRONMENT,
                "{container:?} {ifname:?}"
            );
        }
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=";
        let pod = with(&[("CNI_ARGS", args)], |e| e.pod()).unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid),
            ("ns", "p", None)
        );
        assert!(with(&[("CNI_ARGS", "K8S_POD_NAME=p")], |e| e.pod()).is_err());
        assert!(with(&[("CNI_COMMAND", "FROB")], |e| e.command()).is_err());
    }

    #[test]
    fn host_ports_are_read_as_runtimes_write_them() {
        let read = |mappings: &str| {
            conf(&format!(
                r#"{{"runtimeConfig":{{"portMappings":{mappings}}}}}"#
            ))
            .host_ports()
        };
        let ports = read(
            r#"[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""},
                {"hostPort":53,"containerPort":5353,"protocol":"UDP","hostIP":"127.0.0.1"},
                {"hostPort":0,"containerPort":9,"protocol":"tcp"}]"#,
        );
        let texts: Vec<String> = ports.unwrap().iter().map(HostPort::to_string).collect();
        assert_eq!(texts, ["TCP/*/8080/80", "UDP/127.0.0.1/53/5353"]);
        let containerd = r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]"#;
        assert_eq!(read(containerd).unwrap()[0].to_string(), "TCP/*/8080/80");
        let ipv6 = r#"[{"hostPort":1,"containerPort":1,"hostIP":"::"}]"#;
        assert_eq!(read(ipv6).unwrap()[0].to_string(), "TCP/::/1/1");
        assert!(read("null").unwrap().is_empty());
        assert!(conf("{}").host_ports().unwrap().is_empty());
        for bad in [
            r#"[{"hostPort":1,"containerPort":1,"protocol":"icmp"}]"#,
            r#"[{"hostPort":1,"containerPort":1,"hostIP":"localhost"}]"#,
            r#"[{"hostPort":-1,"containerPort":1}]"#,
            r#"[{"containerPort":1}]"#,
        ] {
            assert_eq!(read(bad).unwrap_err().code, code::INVALID_CONFIG, "{bad}");
        }
    }

    #[test]
    fn a_del_reads_what_it_can() {
        let of = |input: &str| {
            let conf = NetConf::of_del(input.as_bytes());
            (conf.cni_version, conf.socket)
        };
        let read = |version: &str, socket: &str| (version.to_owned(), socket.to_owned());
        let cases = [
            (
                r#"{"cniVersion":"1.0.0","socket":"/s"}"#,
                read("1.0.0", "/s"),
            ),
            (r#"{"cniVersion":9,"socket":"/s","dns":7}"#, read("", "/s")),
            (
                r#"{"cniVersion":"9.0.0","socket":[]}"#,
                read("9.0.0", SOCKET),
            ),
            ("[]", read("", SOCKET)),
            ("not JSON", read("", SOCKET)),
            ("", read("", SOCKET)),
        ];
        for (input, expected) in cases {
            assert_eq!(of(input), expected, "{input}");
        }
    }

    #[test]
    fn a_gc_without_its_list_removes_nothing() {
        let failure = conf(r#"{"cniVersion":"1.1.0"}"#)
            .valid_attachments()
            .unwrap_err();
        assert_eq!(failure.code, code::INVALID_CONFIG);
        let some = conf(r#"{"cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#);
        assert_eq!(some.valid_attachments().unwrap()[0].container, "c");
        let none = conf(r#"{"cni.dev/valid-attachments":[]}"#);
        assert!(none.valid_attachments().unwrap().is_empty());
        assert_eq!(NetConf::parse(b"[").unwrap_err().code, code::DECODE);
    }
}
