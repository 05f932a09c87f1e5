//! Schemas that the derive cannot express, and the CustomResourceDefinitions as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::{Eip, EipGateway, NetworkProbe, Subnet, VNic, Vpc, YusurService};

/// By which `kubectl get` lists the objects of all kinds.
const CATEGORY: &str = "ycloud";

/// The definitions of every kind, in the order of their names.
///
/// They differ from the derive's in three points. No field is `nullable`: an optional field is left out, never null, so
/// that the rules' `has()` says all there is to say. A label selector is one that Kubernetes understands. And lines of a description that belong together are one line, as
/// `kubectl explain` breaks them itself.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        EipGateway::crd(),
        Eip::crd(),
        NetworkProbe::crd(),
        Subnet::crd(),
        VNic::crd(),
        Vpc::crd(),
        YusurService::crd(),
    ];
    for definition in &mut definitions {
        definition.spec.names.categories = Some(vec![CATEGORY.to_owned()]);
        for version in &mut definition.spec.versions {
            let schema = version.schema.as_mut();
            if let Some(root) = schema.and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                finish(root);
            }
        }
    }
    definitions
}

fn finish(schema: &mut JSONSchemaProps) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as ext;
    schema.nullable = None;
    understood(schema);
    if let Some(text) = schema.description.take() {
        let paragraphs: Vec<String> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
        schema.description = Some(paragraphs.join("\n\n"));
    }
    if let Some(properties) = schema.properties.as_mut() {
        properties.values_mut().for_each(finish);
    }
    match schema.items.as_mut() {
        Some(ext::JSONSchemaPropsOrArray::Schema(items)) => finish(items),
        Some(ext::JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(finish),
        None => {}
    }
    if let Some(ext::JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut()
    {
        finish(values);
    }
}

/// How many expressions a selector has at most, and values an expression.
const SELECTOR_MAX: i64 = 64;

/// Lets a label selector have only operators that there are, each with or without values as it needs. Kubernetes checks
/// that in its own objects alone, and one that it does not understand matches nothing, without a word. Source:
/// apimachinery, `LabelSelectorRequirement`.
fn understood(schema: &mut JSONSchemaProps) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as ext;
    let properties = schema.properties.as_mut();
    let expressions = properties.and_then(|all| match all.contains_key("matchLabels") {
        true => all.get_mut("matchExpressions"),
        false => None,
    });
    let Some(expressions) = expressions else {
        return;
    };
    expressions.max_items = Some(SELECTOR_MAX);
    let Some(ext::JSONSchemaPropsOrArray::Schema(expression)) = expressions.items.as_mut() else {
        return;
    };
    let operators = ["In", "NotIn", "Exists", "DoesNotExist"];
    if let Some(fields) = expression.properties.as_mut() {
        if let Some(operator) = fields.get_mut("operator") {
            operator.enum_ = Some(operators.map(|name| ext::JSON(name.into())).into());
        }
        if let Some(values) = fields.get_mut("values") {
            values.max_items = Some(SELECTOR_MAX);
        }
    }
    let rule = |rule: &str, message: &str| ext::ValidationRule {
        rule: rule.to_owned(),
        message: Some(message.to_owned()),
        ..ext::ValidationRule::default()
    };
    expression.x_kubernetes_validations = Some(vec![
        rule(
            "!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",
            "matchExpressions: operators In and NotIn need values; list at least one",
        ),
        rule(
            "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",
            "matchExpressions: operators Exists and DoesNotExist take no values; leave values out",
        ),
    ]);
}

/// A port number 1 to 65535, or the name of a container port (RFC 6335 §5.1: 1 to 15 letters, digits and hyphens).
/// Bounds on numbers bind numbers only, those on strings strings only, so that no rule is needed.
pub(crate) fn port_or_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "minimum": 1,
        "maximum": 65535,
        "minLength": 1,
        "maxLength": 15,
        // A name of RFC 6335 §5.1: at least one letter, no two hyphens in a row. "8080" in quotes is none.
        "pattern": "^([a-z0-9]+-)*[a-z0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*$",
    })
}

/// Labels that Pods must carry: up to 64, values as labels have them.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
    })
}

/// Up to 1024 names of namespaces, none twice.
pub(crate) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1024,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 63,
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        },
    })
}

/// Up to 1024 CIDRs, none twice. The item rule is the API server's own `isCIDR`.
pub(crate) fn cidrs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 1024,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": 43,
            "x-kubernetes-validations": [{
                "rule": "isCIDR(self)",
                "message": "not a range of addresses; write 203.0.113.0/24",
            }],
        },
    })
}

/// Up to 256 IPv4 addresses or inclusive ranges, none twice.
pub(crate) fn ipv4_ranges(_: &mut SchemaGenerator) -> Schema {
    ranges_of(
        "self.split('-').size() <= 2 && self.split('-').all(a, isIP(a) && ip(a).family() == 4)",
        "not an IPv4 address or range; write 10.0.1.9 or 10.0.1.200-10.0.1.254",
        31,
    )
}

/// Up to 256 addresses or inclusive ranges of either family, none twice.
pub(crate) fn ranges(_: &mut SchemaGenerator) -> Schema {
    ranges_of(
        "self.split('-').size() <= 2 && self.split('-').all(a, isIP(a)) && !(self.contains('.') && self.contains(':'))",
        "not an address or range; write 10.0.1.9, 10.0.1.200-10.0.1.254 or fd00::9-fd00::ff",
        79,
    )
}

/// Up to two addresses, of different families.
pub(crate) fn cluster_ips(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 2,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "string",
            "maxLength": 45,
            "x-kubernetes-validations": [{
                "rule": "isIP(self)",
                "message": "not an address; name one of the service range, or leave clusterIPs out to have them allocated",
            }],
        },
        "x-kubernetes-validations": [{
            "rule": "self.size() < 2 || !self.all(a, isIP(a)) || ip(self[0]).family() != ip(self[1]).family()",
            "message": "spec.clusterIPs: two of one family; a Service has at most one address of each",
        }],
    })
}

fn ranges_of(rule: &str, message: &str, length: u32) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "maxLength": length,
            "x-kubernetes-validations": [{ "rule": rule, "message": message }],
        },
    })
}
