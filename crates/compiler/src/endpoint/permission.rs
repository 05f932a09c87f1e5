//! Who may use a Vpc, and whose Pods may be backends.
//!
//! A YusurService needs every Vpc that it is about to permit its namespace. Backends of another namespace need more: their
//! Vpc itself must name the YusurService's namespace. That nobody is excluded is not a grant of somebody else's Pods, nor is
//! that a Subnet of it is the namespace's.

use ycloud_api::condition::{Verdict, reason};
use ycloud_api::{Vpc, YusurService};

use crate::validate::vpc::is_late;

use super::TranslateInput;
use super::scope::{namespace_of, own_namespace, own_vpc, vpc_of};

/// The first Vpc that the spec must not use, and why.
pub fn check(ysvc: &YusurService, input: &TranslateInput) -> Option<Verdict> {
    let own = own_vpc(ysvc).map(|vpc| (field_of_own(ysvc, vpc), vpc));
    let backends = ysvc.spec.backends.iter().enumerate();
    let theirs = backends.clone().filter_map(|(index, backend)| {
        let vpc = vpc_of(ysvc, backend)?;
        Some((format!("spec.backends[{index}].vpc {vpc}"), vpc))
    });
    for (field, vpc) in own.into_iter().chain(theirs) {
        if let Some(verdict) = check_vpc(ysvc, input, &field, vpc) {
            return Some(verdict);
        }
    }
    for (index, backend) in backends {
        let namespace = namespace_of(ysvc, backend);
        let Some(vpc) = vpc_of(ysvc, backend) else {
            continue;
        };
        if !lends(ysvc, input, namespace, vpc) {
            let own = own_namespace(ysvc);
            let text = format!(
                "spec.backends[{index}].namespace {namespace}: Vpc {vpc} does not name namespace {own}, as it must for backends of another namespace; have {own} added to the Vpc's spec.allowedNamespaces.names"
            );
            return Some(Verdict::no(reason::NOT_PERMITTED, text));
        }
    }
    None
}

/// Whether a Pod of `namespace` in `vpc` may be, or stay, a backend of `ysvc`.
pub fn permits(ysvc: &YusurService, input: &TranslateInput, namespace: &str, vpc: &str) -> bool {
    let uses = |object: &&Vpc| uses(ysvc, input, vpc, object);
    input.vpcs.get(vpc).is_some_and(uses) && lends(ysvc, input, namespace, vpc)
}

/// Whether a Vpc permits the YusurService's namespace, by itself or by one of its Subnets.
fn uses(ysvc: &YusurService, input: &TranslateInput, name: &str, vpc: &Vpc) -> bool {
    vpc.permits(own_namespace(ysvc), input.namespace_labels) || input.named.contains(name)
}

/// Whether `vpc` lends Pods of `namespace` to the YusurService's one.
fn lends(ysvc: &YusurService, input: &TranslateInput, namespace: &str, vpc: &str) -> bool {
    let own = own_namespace(ysvc);
    let allowed = |vpc: &&Vpc| {
        let allowed = vpc.spec.allowed_namespaces.as_ref();
        allowed.is_some_and(|allowed| allowed.names.iter().any(|name| name == own))
    };
    namespace == own || input.vpcs.get(vpc).is_some_and(allowed)
}

fn field_of_own(ysvc: &YusurService, vpc: &str) -> String {
    match ysvc.spec.vpc {
        Some(_) => format!("spec.vpc {vpc}"),
        None => format!("spec.scope {} (Vpc {vpc})", ysvc.spec.scope.as_str()),
    }
}

fn check_vpc(
    ysvc: &YusurService,
    input: &TranslateInput,
    field: &str,
    name: &str,
) -> Option<Verdict> {
    let Some(vpc) = input.vpcs.get(name) else {
        let other = if ysvc.spec.vpc.as_deref() == Some(name) {
            "make a new YusurService that names another one"
        } else {
            "name another one"
        };
        let text = format!("{field}: there is no such Vpc; make it, or {other}");
        return Some(Verdict::no(reason::NOT_FOUND, text));
    };
    let namespace = own_namespace(ysvc);
    if uses(ysvc, input, name, vpc) {
        return is_late(vpc, &ysvc.metadata).then(|| {
            let text = format!(
                "{field}: Vpc {name} is being deleted and takes no newcomers; use another Vpc"
            );
            Verdict::no(reason::DELETING, text)
        });
    }
    let text = format!(
        "{field}: Vpc {name} does not permit namespace {namespace}; have it added to the Vpc's spec.allowedNamespaces"
    );
    Some(Verdict::no(reason::NOT_PERMITTED, text))
}
