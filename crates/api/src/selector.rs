//! Which labels a selector matches, and which namespaces a Vpc permits.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use crate::vpc::{AllowedNamespaces, VpcSpec};

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

impl VpcSpec {
    /// Whether Pods, VNics and YusurServices of namespace `name`, which has `labels`, may use the Vpc.
    pub fn permits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let allowed = self.allowed_namespaces.as_ref();
        allowed.is_none_or(|allowed| allowed.permits(name, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> VpcSpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn namespaces_are_permitted_by_name_or_by_label() {
        let none = BTreeMap::new();
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        assert!(spec("{}").permits("x", &none), "unset permits all");
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
