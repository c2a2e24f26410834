//! The JSON Schema (draft 2020-12) of the file, for editors.

use serde_json::{Map, Value, json};

use super::decode::{Decode, Keys, Presence, Shape};
use super::raw;

/// The schema as JSON text.
pub fn schema() -> String {
    let mut definitions = Map::new();
    let root = describe(&raw::Root::shape(), &mut definitions);
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Foreland",
        "description": "The configuration of Foreland",
        "$ref": root["$ref"],
        "$defs": definitions,
    });
    format!("{schema:#}\n")
}

fn describe(shape: &Shape, definitions: &mut Map<String, Value>) -> Value {
    match shape {
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Number { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        // Editors that read YAML 1.1 take a bare `on` or `off` for a boolean.
        Shape::Words(words) if words.contains(&"off") => {
            let mut words: Vec<Value> = words.iter().map(|w| json!(w)).collect();
            words.push(json!(false));
            if words.contains(&json!("on")) {
                words.push(json!(true));
            }
            json!({"enum": words})
        }
        Shape::Words(words) => json!({"enum": words}),
        Shape::Text(kind) => json!({"type": "string", "pattern": kind.pattern, "description": kind.expected}),
        Shape::List { of, min } => json!({"type": "array", "items": describe(of, definitions), "minItems": min}),
        Shape::Map { key, of, min } => json!({
            "type": "object",
            "propertyNames": {"pattern": key.pattern},
            "additionalProperties": describe(of, definitions),
            "minProperties": min,
        }),
        Shape::Any(shapes) => {
            let shapes: Vec<Value> = shapes.iter().map(|shape| describe(shape, definitions)).collect();
            json!({"anyOf": shapes})
        }
        Shape::Keys(keys) => {
            let keys = keys();
            if !definitions.contains_key(keys.name) {
                // Taken before its members are described, so that a name is described once.
                definitions.insert(keys.name.to_owned(), Value::Null);
                let definition = mapping(&keys, definitions);
                definitions.insert(keys.name.to_owned(), definition);
            }
            json!({"$ref": format!("#/$defs/{}", keys.name)})
        }
    }
}

fn mapping(keys: &Keys, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &keys.fields {
        let mut property = describe(&(field.shape)(), definitions);
        let mut doc = field.doc.trim().replace("\n ", " ");
        match field.presence {
            Presence::Required => required.push(field.name),
            Presence::Default(default) => doc.push_str(&format!(" Default: {default}.")),
            Presence::Absent(meaning) => doc.push_str(&format!(" If left out: {meaning}.")),
        }
        property["description"] = json!(doc);
        properties.insert(field.name.to_owned(), property);
    }
    json!({
        "type": "object",
        "description": keys.doc.trim(),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
