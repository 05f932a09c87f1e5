//! TLS to a real ovsdb-server, with certificates as `ovs-pki` makes them (no names) and with names.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use support::{Server, free_port, schema, text, within};
use ycloud_ovsdb::{Client, Columns, Config, Operation, Remote, Tls};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Result<Authority> {
    let mut params = CertificateParams::new(Vec::new())?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// Files of a certificate for these names, signed by an authority.
fn tls(dir: &Path, file: &str, authority: &Authority, names: &[&str]) -> Result<Tls> {
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )?;
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, file);
    let key = KeyPair::generate()?;
    let write = |kind: &str, pem: String| -> Result<PathBuf> {
        let path = dir.join(format!("{file}-{kind}.pem"));
        fs::write(&path, pem)?;
        Ok(path)
    };
    Ok(Tls {
        ca: write("ca", authority.pem())?,
        certificate: write("cert", params.signed_by(&key, authority)?.pem())?,
        key: write("key", key.serialize_pem())?,
        server_name: None,
    })
}

fn serve(dir: &Path, tls: &Tls, port: u16) -> Result<Server> {
    fs::create_dir_all(dir)?;
    let mut server = Server::prepare(dir, &schema::write(dir)?)?.with(&[
        &format!("--remote=pssl:{port}:127.0.0.1"),
        &format!("--private-key={}", text(&tls.key)),
        &format!("--certificate={}", text(&tls.certificate)),
        &format!("--ca-cert={}", text(&tls.ca)),
    ]);
    server.start()?;
    Ok(server)
}

fn client(port: u16, tls: Option<Tls>) -> Result<Client> {
    let mut config = Config::new(
        Remote::parse_list(&format!("ssl:127.0.0.1:{port}"))?,
        schema::DATABASE,
    );
    config.tls = tls;
    Ok(Client::spawn(config.monitor_all("Shape")))
}

async fn refused(client: &Client) -> Result<String> {
    let mut connection = client.connection();
    let error = within(
        10,
        "a refusal",
        connection.wait_for(|connection| connection.last_error.is_some()),
    )
    .await?;
    Ok(error?.last_error.as_deref().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_is_checked_and_the_name_if_wanted() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (ours, other) = (authority("ours")?, authority("other")?);
    let nameless = tls(dir.path(), "nameless", &ours, &[])?;
    let named = tls(dir.path(), "named", &ours, &["nb.example.com"])?;
    let mine = tls(dir.path(), "client", &ours, &[])?;
    let (first, second) = (free_port()?, free_port()?);
    let _nameless = serve(&dir.path().join("nameless"), &nameless, first)?;
    let _named = serve(&dir.path().join("named"), &named, second)?;

    let expecting = |name: &str| Tls {
        server_name: Some(name.to_owned()),
        ..mine.clone()
    };
    for (port, tls) in [
        (first, mine.clone()),
        (second, mine.clone()),
        (second, expecting("nb.example.com")),
    ] {
        let client = client(port, Some(tls))?;
        within(10, "the first sync", client.synced()).await??;
        let insert = Operation::insert_anew(
            "Shape",
            Columns::new().with("name", uuid::Uuid::new_v4().to_string()),
        );
        ensure!(client.transact(vec![insert]).await?.is_committed());
    }

    let error = refused(&client(second, Some(expecting("other.example.com")))?).await?;
    ensure!(error.contains("not valid for name"), "{error}");
    let error = refused(&client(first, Some(expecting("nb.example.com")))?).await?;
    ensure!(error.contains("failed to agree on TLS"), "{error}");
    let error = refused(&client(
        first,
        Some(tls(dir.path(), "stranger", &other, &[])?),
    )?)
    .await?;
    ensure!(error.contains("UnknownIssuer"), "{error}");
    // The server does not know the authority that signed our certificate.
    let unknown = Tls {
        ca: mine.ca.clone(),
        ..tls(dir.path(), "unknown", &other, &[])?
    };
    let error = refused(&client(first, Some(unknown))?).await?;
    ensure!(!error.is_empty());
    let error = refused(&client(first, None)?).await?;
    ensure!(error.contains("no TLS files are configured"), "{error}");
    let missing = Tls {
        key: dir.path().join("missing.pem"),
        ..mine
    };
    let error = refused(&client(first, Some(missing))?).await?;
    ensure!(
        error.contains("failed to read") && error.contains("missing.pem"),
        "{error}"
    );
    Ok(())
}
