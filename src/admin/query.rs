//! The parameters of those requests that have any.

/// What is looked up: `url=…`, once, and `header=Name: value`, as often as there are fields; percent-encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lookup {
    pub url: String,
    pub fields: Vec<String>,
}

impl Lookup {
    /// Reads a query.
    ///
    /// # Errors
    /// It asks for something else, or for more than one thing.
    pub fn parse(query: &str) -> Result<Lookup, String> {
        let (mut url, mut fields) = (None, Vec::new());
        for parameter in parameters(query) {
            let (name, value) = parameter?;
            match name.as_str() {
                "url" if url.is_some() => return Err("the parameter `url` comes twice".to_owned()),
                "url" => url = Some(decoded(value)?),
                "header" => fields.push(decoded(value)?),
                _ => {
                    let hint = "there are `url` and `header`; an `&` that belongs to a URL is written %26";
                    return Err(format!("there is no parameter {name:?}: {hint}"));
                }
            }
        }
        let url = url.ok_or("the parameter `url` is missing")?;
        Ok(Lookup { url, fields })
    }
}

/// Entries of the ledger that are told of where nobody says how many.
const ENTRIES: usize = 100;

/// Entries of the ledger that can be asked for.
const MOST_ENTRIES: usize = 1000;

/// Reads the query of the ledger: `limit=`, once, if at all.
///
/// # Errors
/// It asks for something else.
pub fn limit(query: &str) -> Result<usize, String> {
    let mut limit = None;
    for parameter in parameters(query) {
        let (name, value) = parameter?;
        if name != "limit" {
            return Err(format!("there is no parameter {name:?}: there is `limit`"));
        }
        if limit.is_some() {
            return Err("the parameter `limit` comes twice".to_owned());
        }
        let value = decoded(value)?;
        let number = Some(&value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|text| text.parse().ok()).filter(|number| (1..=MOST_ENTRIES).contains(number));
        limit = Some(number.ok_or_else(|| format!("`limit` is a number from 1 to {MOST_ENTRIES}, not {value:?}"))?);
    }
    Ok(limit.unwrap_or(ENTRIES))
}

/// Names, decoded, and values, which are not.
fn parameters(query: &str) -> impl Iterator<Item = Result<(String, &str), String>> {
    query.split('&').filter(|parameter| !parameter.is_empty()).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        Ok((decoded(name)?, value))
    })
}

/// A `+` is one: no URL has spaces that it could stand for.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(format!("{text:?} is not percent-encoded: a `%` is written %25"));
        };
        // Two digits of 4 bits.
        bytes.push((high << 4 | low) as u8);
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8"))
}
