//! The cluster's certificates and kubeconfigs. A file that is there is kept, so that a repaired lab keeps its identity.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::agent;
use crate::layout::{Layout, Machine};
use crate::state::write_aside;

/// Where a component reaches the API server.
struct Client<'a> {
    name: &'a str,
    common_name: &'a str,
    organization: Option<&'a str>,
    server: String,
    kubeconfig: PathBuf,
}

/// Makes everything that is missing.
pub(crate) fn ensure(layout: &Layout) -> Result<()> {
    let pki = layout.pki();
    fs::create_dir_all(&pki).with_context(|| format!("failed to make {}", pki.display()))?;
    let ca = authority(&pki, "ca", "ycloud-lab-ca")?;
    let front_proxy = authority(&pki, "front-proxy-ca", "ycloud-lab-front-proxy-ca")?;
    service_account_key(&pki)?;
    leaf(
        &pki,
        "apiserver",
        ("kube-apiserver", None),
        api_server_names(layout)?,
        &ca,
    )?;
    leaf(
        &pki,
        "kubelet-client",
        ("kube-apiserver-kubelet-client", Some("system:masters")),
        vec![],
        &ca,
    )?;
    leaf(
        &pki,
        "front-proxy",
        ("front-proxy-client", None),
        vec![],
        &front_proxy,
    )?;
    let local = "https://127.0.0.1:6443".to_owned();
    for client in [
        Client {
            name: "admin",
            common_name: "admin",
            organization: Some("system:masters"),
            server: format!("https://{}:6443", layout.control_address()),
            kubeconfig: layout.kubeconfig(),
        },
        component(
            layout,
            "kube-controller-manager",
            "system:kube-controller-manager",
            &local,
        ),
        component(layout, "kube-scheduler", "system:kube-scheduler", &local),
    ] {
        client_files(&pki, &client, &ca)?;
    }
    for machine in layout.node_machines() {
        node_files(layout, machine, &ca)?;
    }
    chassis_files(layout, Machine::Dpu, &ca)
}

fn component<'a>(layout: &Layout, name: &'a str, common_name: &'a str, server: &str) -> Client<'a> {
    let kubeconfig = layout.state().join(format!("{name}.kubeconfig"));
    Client {
        name,
        common_name,
        organization: None,
        server: server.to_owned(),
        kubeconfig,
    }
}

/// A node's client certificate (Node authorization asks for this name and group) and the kubelet's serving certificate.
fn node_files(layout: &Layout, machine: Machine, ca: &Issuer<'_, KeyPair>) -> Result<()> {
    let (pki, node) = (layout.pki(), machine.to_string());
    let common_name = format!("system:node:{node}");
    let client = Client {
        name: &node,
        common_name: &common_name,
        organization: Some("system:nodes"),
        server: format!("https://{}:6443", layout.address(Machine::Control)),
        kubeconfig: layout.machine_dir(machine).join("kubelet.kubeconfig"),
    };
    fs::create_dir_all(layout.machine_dir(machine))?;
    client_files(&pki, &client, ca)?;
    let names = vec![
        dns(&node)?,
        SanType::IpAddress(IpAddr::V4(layout.address(machine))),
    ];
    leaf(
        &pki,
        &format!("{node}-serving"),
        (&common_name, Some("system:nodes")),
        names,
        ca,
    )
}

/// What ycloud's agent on a chassis without a kubelet is: a user of its own, as `deploy/chassis/README.md` has it.
fn chassis_files(layout: &Layout, machine: Machine, ca: &Issuer<'_, KeyPair>) -> Result<()> {
    let (name, user) = (
        format!("{machine}-chassis"),
        format!("ycloud:chassis:{machine}"),
    );
    let client = Client {
        name: &name,
        common_name: &user,
        organization: Some("ycloud:chassis"),
        server: format!("https://{}:6443", layout.address(Machine::Control)),
        kubeconfig: agent::kubeconfig(layout, machine),
    };
    fs::create_dir_all(layout.machine_dir(machine))?;
    client_files(&layout.pki(), &client, ca)
}

fn dns(name: &str) -> Result<SanType> {
    Ok(SanType::DnsName(name.try_into().with_context(|| {
        format!("{name:?} cannot stand in a certificate")
    })?))
}

fn api_server_names(layout: &Layout) -> Result<Vec<SanType>> {
    let mut names = Vec::new();
    for name in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "kube-apiserver",
        "localhost",
    ] {
        names.push(dns(name)?);
    }
    for address in [
        [127, 0, 0, 1].into(),
        [10, 96, 0, 1].into(),
        layout.control_address(),
        layout.address(Machine::Control),
    ] {
        names.push(SanType::IpAddress(IpAddr::V4(address)));
    }
    Ok(names)
}

fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// A certificate authority: read back if it is there.
fn authority(pki: &Path, name: &str, common_name: &str) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let (key_path, path) = (
        pki.join(format!("{name}.key")),
        pki.join(format!("{name}.crt")),
    );
    let key = if key_path.exists() && path.exists() {
        let pem = fs::read_to_string(&key_path)
            .with_context(|| format!("failed to read {}", key_path.display()))?;
        KeyPair::from_pem(&pem)
            .with_context(|| format!("failed to understand {}", key_path.display()))?
    } else {
        let key = KeyPair::generate().context("failed to make a key")?;
        let certificate = params
            .self_signed(&key)
            .with_context(|| format!("failed to sign {name}"))?;
        secret(&key_path, &key.serialize_pem())?;
        write_aside(&path, certificate.pem().as_bytes())?;
        key
    };
    Ok(Issuer::new(params, key))
}

/// A certificate for clients and servers alike. The certificate is written last: where it is, the key is too.
fn leaf(
    pki: &Path,
    name: &str,
    (common_name, organization): (&str, Option<&str>),
    names: Vec<SanType>,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let path = pki.join(format!("{name}.crt"));
    if path.exists() {
        return Ok(());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, organization);
    params.subject_alt_names = names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let key = KeyPair::generate().context("failed to make a key")?;
    let certificate = params
        .signed_by(&key, issuer)
        .with_context(|| format!("failed to sign {name}"))?;
    secret(&pki.join(format!("{name}.key")), &key.serialize_pem())?;
    write_aside(&path, certificate.pem().as_bytes())
}

/// The key that signs service accounts' tokens, and its public half.
fn service_account_key(pki: &Path) -> Result<()> {
    let public = pki.join("service-account.pub");
    if !public.exists() {
        let key = KeyPair::generate().context("failed to make a key")?;
        secret(&pki.join("service-account.key"), &key.serialize_pem())?;
        write_aside(&public, key.public_key_pem().as_bytes())?;
    }
    Ok(())
}

fn client_files(pki: &Path, client: &Client<'_>, ca: &Issuer<'_, KeyPair>) -> Result<()> {
    leaf(
        pki,
        client.name,
        (client.common_name, client.organization),
        vec![],
        ca,
    )?;
    let file = |suffix: &str| pki.join(format!("{}.{suffix}", client.name));
    // A kubeconfig is YAML, and JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": client.server, "certificate-authority": pki.join("ca.crt")}}],
        "users": [{"name": client.name, "user": {"client-certificate": file("crt"), "client-key": file("key")}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": client.name}}],
        "current-context": "lab",
    });
    secret(&client.kubeconfig, &serde_json::to_string_pretty(&config)?)
}

/// Writes a file that only root may read.
fn secret(path: &Path, content: &str) -> Result<()> {
    write_aside(path, content.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("failed to protect {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_keeps_every_file_and_the_authority_signs_on() {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path();
        let read = |name: &str| fs::read(pki.join(name)).unwrap();
        let ca = authority(pki, "ca", "test-ca").unwrap();
        leaf(
            pki,
            "one",
            ("one", Some("system:nodes")),
            vec![dns("one").unwrap()],
            &ca,
        )
        .unwrap();
        let before = (read("ca.crt"), read("ca.key"), read("one.crt"));
        let ca = authority(pki, "ca", "test-ca").unwrap();
        leaf(pki, "one", ("one", None), vec![], &ca).unwrap();
        leaf(pki, "two", ("two", None), vec![], &ca).unwrap();
        assert_eq!(before, (read("ca.crt"), read("ca.key"), read("one.crt")));
        assert_eq!(
            fs::metadata(pki.join("two.key"))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        for leaf in ["one.crt", "two.crt"] {
            let verified = crate::command::run(&mut crate::command::command(
                "openssl",
                [
                    "verify".as_ref(),
                    "-CAfile".as_ref(),
                    pki.join("ca.crt").as_os_str(),
                    pki.join(leaf).as_os_str(),
                ],
            ));
            assert!(verified.is_ok(), "{verified:?}");
        }
    }
}
