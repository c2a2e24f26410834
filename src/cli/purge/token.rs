//! What the admin listener may ask for.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use http::HeaderValue;

/// A bearer token, that is never shown.
pub struct Token(HeaderValue);

impl Token {
    pub const VARIABLE: &str = "FORELAND_ADMIN_TOKEN";

    /// The variable's value; an empty one counts as none.
    ///
    /// # Errors
    /// It cannot be sent.
    pub fn from_value(value: &OsStr) -> Result<Option<Token>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        let mut field = HeaderValue::from_bytes(&[b"Bearer ", value.as_bytes()].concat())
            .map_err(|_| format!("{} has a line end or another control character in it", Token::VARIABLE))?;
        field.set_sensitive(true);
        Ok(Some(Token(field)))
    }

    /// The field Authorization.
    pub fn field(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_can_be_sent_and_is_not_shown() {
        let token = Token::from_value(OsStr::new("s3cret")).expect("a token").expect("one");
        assert_eq!(token.field(), "Bearer s3cret");
        assert!(!format!("{token:?} {:?}", token.field()).contains("s3cret"));
        assert!(Token::from_value(OsStr::new("")).is_ok_and(|it| it.is_none()));
        let error = Token::from_value(OsStr::new("s3cret\n")).expect_err("a line end");
        assert!(error.contains(Token::VARIABLE) && !error.contains("s3cret"), "{error}");
    }
}
