//! Which labels a selector matches, and which namespaces a Vpc permits.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::eip_gateway::EipGateway;
use crate::key;
use crate::vpc::{AllowedNamespaces, Vpc};

/// Whether `labels` match `selector`. An empty selector matches everything; one with an operator that Kubernetes does
/// not know matches nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

impl AllowedNamespaces {
    /// Whether namespace `name`, which has `labels`, is among them.
    pub fn permits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let by_label = || self.selector.as_ref().is_some_and(|s| matches(s, labels));
        self.names.iter().any(|n| n == name) || by_label()
    }
}

impl Vpc {
    /// Whether it names namespace `name`, which has `labels`, as one that may use it. Those that its Subnets name may,
    /// too. The default Vpc, that of all who have no other, permits all where it names nobody.
    pub fn permits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match &self.spec.allowed_namespaces {
            Some(allowed) => allowed.permits(name, labels),
            None => self.metadata.name.as_deref() == Some(key::DEFAULT_VPC),
        }
    }
}

impl EipGateway {
    /// Whether namespace `name`, which has `labels`, may have Eips of it. `default`: it is the default one, everybody's if it
    /// names nobody. `holds`: the Eip that asks holds an address of it already.
    pub fn permits(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        default: bool,
        holds: bool,
    ) -> bool {
        match &self.spec.allowed_namespaces {
            Some(allowed) => allowed.permits(name, labels),
            None => default || holds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> Vpc {
        Vpc::new("vpc1", serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn namespaces_are_permitted_by_name_or_by_label() {
        let none = BTreeMap::new();
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        assert!(!spec("{}").permits("x", &none), "unset permits none");
        let default = Vpc::new(key::DEFAULT_VPC, spec("{}").spec);
        assert!(
            default.permits("x", &none),
            "but everybody in the default Vpc"
        );
        let nobody = spec("allowedNamespaces: {}");
        assert!(!nobody.permits("x", &labels), "set but empty permits none");
        let named = spec("allowedNamespaces: {names: [a, b]}");
        assert!(named.permits("b", &none) && !named.permits("c", &none));
        let labelled = spec("allowedNamespaces: {selector: {matchLabels: {team: a}}}");
        assert!(labelled.permits("x", &labels) && !labelled.permits("x", &none));
        let all = spec("allowedNamespaces: {selector: {}}");
        assert!(all.permits("x", &none), "an empty selector matches all");
        let unknown = "allowedNamespaces: {selector: {matchExpressions: [{key: a, operator: Is}]}}";
        assert!(
            !spec(unknown).permits("x", &none),
            "an unknown operator matches nothing"
        );
    }
}
