//! Parts of what comes through Pingora's cache. The rules decide which, as for a hit; Pingora cuts them.

use std::ops::Range;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::{RangeType, Session};

use super::context::Context;
use super::parts::content_range;
use crate::http_cache::{self, Ranges};

/// Makes a head that of the parts that the client asks for, and says which these are.
pub fn apply(session: &Session, head: &mut ResponseHeader, ctx: &Context) -> RangeType {
    // RFC 9110 §14.2: in a GET, of a 200, if If-Range allows.
    let request = session.req_header();
    let applies = request.method == Method::GET
        && head.status == StatusCode::OK
        && http_cache::if_range_matches(&request.headers, &head.headers, ctx.now);
    let length = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let (true, Some(length)) = (applies, length) else { return RangeType::None };
    cut(Ranges::of(&request.headers, length), length as usize, head).unwrap_or(RangeType::None)
}

fn cut(ranges: Ranges, length: usize, head: &mut ResponseHeader) -> Result<RangeType> {
    let to_usize = |r: Range<u64>| r.start as usize..r.end as usize;
    match ranges {
        Ranges::Ignore => Ok(RangeType::None),
        Ranges::Unsatisfiable => {
            head.set_status(StatusCode::RANGE_NOT_SATISFIABLE)?;
            for name in [CONTENT_TYPE, CONTENT_ENCODING, TRANSFER_ENCODING] {
                head.remove_header(&name);
            }
            head.insert_header(CONTENT_LENGTH, 0)?;
            head.insert_header(CONTENT_RANGE, content_range(None, length as u64))?;
            Ok(RangeType::Invalid)
        }
        Ranges::Single(range) => {
            let range = to_usize(range);
            head.set_status(StatusCode::PARTIAL_CONTENT)?;
            head.insert_header(CONTENT_LENGTH, range.len())?;
            head.insert_header(
                CONTENT_RANGE,
                content_range(Some(&(range.start as u64..range.end as u64)), length as u64),
            )?;
            Ok(RangeType::Single(range))
        }
        // The body passes once, so parts in another order than its own cannot be cut out of it.
        Ranges::Multi(ranges) if ranges.is_sorted_by_key(|range| range.start) => {
            let mut parts = RangeType::new_multi(ranges.into_iter().map(to_usize).collect());
            if let RangeType::Multi(parts) = &mut parts {
                parts.set_total_length(length);
                if let Some(content_type) = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()) {
                    parts.set_content_type(content_type.to_owned());
                }
                head.set_status(StatusCode::PARTIAL_CONTENT)?;
                head.insert_header(CONTENT_LENGTH, parts.calculate_multipart_length())?;
                head.insert_header(CONTENT_TYPE, format!("multipart/byteranges; boundary={}", parts.boundary))?;
            }
            Ok(parts)
        }
        Ranges::Multi(_) => Ok(RangeType::None),
    }
}
