//! Every metric that the edge exposes, declared once: the exposition and `docs/metrics.md` both come from here.

/// How a metric behaves over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and starts again at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// As the text exposition spells it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The declaration of one metric.
#[derive(Debug)]
pub struct Def {
    pub name: &'static str,
    pub kind: Kind,
    /// What one counts, in the plural, or a unit of measure.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Declares the metrics below as statics, and [`ALL`] with each of them in order.
macro_rules! table {
    ($($id:ident: $kind:ident $name:literal in $unit:literal by [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Def =
                Def { name: $name, kind: Kind::$kind, unit: $unit, labels: &[$($label),*], help: $help };
        )*

        /// The whole table, in the order of the documentation.
        pub static ALL: &[&Def] = &[$(&$id),*];
    };
}

table! {
    REQUESTS: Counter "foreland_requests_total" in "requests" by ["site", "status", "cache"]
        "Requests answered, by status class (1xx to 5xx, or none when the client left first) and by what the cache did.";
    REQUESTS_IN_FLIGHT: Gauge "foreland_requests_in_flight" in "requests" by ["site"]
        "Requests whose site is known and whose answer is not complete yet.";
    RESPONSE_BYTES: Counter "foreland_response_bytes_total" in "bytes" by ["site"]
        "Bytes of response bodies sent to clients.";
    REQUEST_BYTES: Counter "foreland_request_bytes_total" in "bytes" by ["site"]
        "Bytes of request bodies received from clients.";
    REQUEST_DURATION: Histogram "foreland_request_duration_seconds" in "seconds" by ["site"]
        "Time from a request's header section to the last byte of its answer.";
    FIRST_BYTE: Histogram "foreland_time_to_first_byte_seconds" in "seconds" by ["site"]
        "Time from a request's header section to the first byte of its answer.";

    RATE_LIMITED: Counter "foreland_rate_limited_total" in "requests" by ["site", "limit", "action"]
        "Requests beyond a rate limit, by what became of them: reject, delay or log (rate_limit.action).";
    RATE_LIMIT_EVICTED: Counter "foreland_rate_limit_evictions_total" in "keys" by []
        "Keys of rate limits, such as addresses, that made room for others while they were in debt; where this grows fast, \
         the table of keys is full, and new ones may be limited before they have had their burst.";
    RATE_LIMIT_TABLE: Gauge "foreland_rate_limit_table_bytes" in "bytes" by []
        "Bytes that the table of the rate limits' keys takes; it does not grow beyond 32 MiB and the locks of its parts.";
    CONCURRENCY_LIMITED: Counter "foreland_concurrency_limited_total" in "requests" by ["site", "limit"]
        "Requests refused since as many of their key were in flight as may be (concurrency_limit).";
    CONCURRENCY_KEYS: Gauge "foreland_concurrency_limit_keys" in "keys" by []
        "Keys of concurrency limits, such as addresses, that have requests in flight.";

    CACHE_HITS: Counter "foreland_cache_hits_total" in "requests" by ["site", "tier"]
        "Requests answered from the cache, by where the response was: fresh, stale, or confirmed by the origin.";
    CACHE_HIT_BYTES: Counter "foreland_cache_hit_bytes_total" in "bytes" by ["site", "tier"]
        "Bytes of response bodies sent from the cache.";
    CACHE_OBJECTS: Gauge "foreland_cache_objects" in "objects" by ["tier"]
        "Objects in the cache.";
    CACHE_BYTES: Gauge "foreland_cache_bytes" in "bytes" by ["tier"]
        "Bytes that the cache holds, metadata included.";
    CACHE_CAPACITY: Gauge "foreland_cache_capacity_bytes" in "bytes" by ["tier"]
        "Bytes that the cache may hold, metadata included.";
    CACHE_EVICTIONS: Counter "foreland_cache_evictions_total" in "objects" by ["tier"]
        "Objects removed to make room for others.";
    CACHE_REJECTIONS: Counter "foreland_cache_admissions_rejected_total" in "objects" by ["tier", "reason"]
        "Objects that might have been stored and were not admitted, by reason: too-large, fills, seldom or tags for all tiers \
         (as tier=\"memory\"), no-room, busy, error or head for the disks.";
    CACHE_FILL_BYTES: Gauge "foreland_cache_fill_bytes" in "bytes" by []
        "Bytes that objects being written hold in memory, beside what the tiers hold.";
    CACHE_FILLS: Gauge "foreland_cache_fills_in_progress" in "fills" by []
        "Objects that are being written to the cache now.";
    CACHE_WAITS: Counter "foreland_cache_waits_total" in "requests" by []
        "How often a request met another one that was fetching the same, and waited for it or was served what is stale.";
    BACKGROUND_FETCHES: Gauge "foreland_cache_background_fetches" in "fetches" by []
        "Stale objects that are being refreshed in the background now.";
    BACKGROUND_SKIPPED: Counter "foreland_cache_background_fetches_skipped_total" in "fetches" by []
        "Refreshes in the background that were not begun because as many ran as may (cache.background_fetches).";

    PURGES: Counter "foreland_purges_total" in "purges" by ["by"]
        "Purges in force, by where they came from: api, method (PURGE) or unsafe-request (a request that changed something).";
    PURGE_SELECTORS: Counter "foreland_purge_selectors_total" in "selectors" by []
        "What those purges selected: URLs, tags and so on.";
    PURGES_NOT_DURABLE: Counter "foreland_purges_not_durable_total" in "purges" by []
        "Purges that are in force but could not be written down: a crash could undo them.";
    LEDGER_SELECTORS: Gauge "foreland_ledger_selectors" in "selectors" by []
        "Purged selectors that stored objects may still have to be compared with.";
    LEDGER_BYTES: Gauge "foreland_ledger_bytes" in "bytes" by []
        "Bytes of the ledger's longest copy on a disk.";
    LEDGER_BEHIND: Gauge "foreland_ledger_copies_behind" in "copies" by []
        "Copies of the ledger, one on each disk, that lack something: what could not be written is tried again.";
    DISK_PURGED: Counter "foreland_disk_purged_total" in "objects" by ["disk"]
        "Objects removed from a disk because they had been purged.";

    DISK_PHASE: Gauge "foreland_disk_phase" in "boolean" by ["disk", "phase"]
        "1 for the phase that a disk is in: away (its folder is not to be had), standby (another process still has it), \
         loading (what is on it is being found out), ready, handed-over or closed; 0 for the others.";
    DISK_OBJECTS: Gauge "foreland_disk_objects" in "objects" by ["disk"]
        "Objects on a disk, as far as is known.";
    DISK_BYTES: Gauge "foreland_disk_bytes" in "bytes" by ["disk"]
        "Bytes in use on a disk: files, what is reserved for those being written, and metadata.";
    DISK_CAPACITY: Gauge "foreland_disk_capacity_bytes" in "bytes" by ["disk"]
        "Bytes that may be in use on a disk.";
    DISK_INDEX_BYTES: Gauge "foreland_disk_index_bytes" in "bytes" by ["disk"]
        "Bytes of memory that a disk's index takes.";
    DISK_INDEX_COMPLETE: Gauge "foreland_disk_index_complete" in "boolean" by ["disk"]
        "1 where all that is on a disk is known, else 0.";
    DISK_OPEN_FILES: Gauge "foreland_disk_open_files" in "files" by ["disk"]
        "Files that are kept open because they are asked for again and again.";
    DISK_FILLS: Gauge "foreland_disk_fills_in_progress" in "fills" by ["disk"]
        "Objects that are being written to a disk now while they come; small ones are written at once when they are whole.";
    DISK_STORED: Counter "foreland_disk_objects_stored_total" in "objects" by ["disk"]
        "Objects written to a disk.";
    DISK_OPENED: Counter "foreland_disk_objects_opened_total" in "objects" by ["disk"]
        "Objects that were asked for and whose file had to be opened.";
    DISK_EVICTIONS: Counter "foreland_disk_evictions_total" in "objects" by ["disk"]
        "Objects removed from a disk to make room for others.";
    DISK_REFUSED: Counter "foreland_disk_writes_refused_total" in "objects" by ["disk", "reason"]
        "Objects that were not written, by reason: no-room (all is in use, or the file system is full), busy (the disk \
         does not keep up), error, head (its fields are too large).";
    DISK_ERRORS: Counter "foreland_disk_errors_total" in "errors" by ["disk", "kind", "cause"]
        "Errors of a disk, by what was asked of it (read, write, remove) and why it failed (full, read_only, permission, \
         missing, files, io, slow).";
    DISK_DEFECTS: Counter "foreland_disk_defects_total" in "files" by ["disk", "cause"]
        "Files that were not what had been written, and were removed: magic, version, length, checksum, wrong-key, \
         malformed.";
    DISK_SUSPENDED: Gauge "foreland_disk_suspended" in "boolean" by ["disk", "direction"]
        "1 where a disk is not read from (read) or not written to (write) because of errors, else 0.";
    DISK_QUEUED: Gauge "foreland_disk_jobs_queued" in "jobs" by ["disk", "direction"]
        "Reads or writes that wait for one of a disk's threads.";
    DISK_RUNNING: Gauge "foreland_disk_jobs_running" in "jobs" by ["disk", "direction"]
        "Reads or writes that a disk's threads are doing.";
    DISK_READ: Histogram "foreland_disk_read_seconds" in "seconds" by ["disk"]
        "Time of reads that a disk's threads did, from when they were asked for; reads from the page cache are none.";

    ORIGIN_REQUESTS: Counter "foreland_origin_requests_total" in "requests" by ["origin", "status"]
        "Requests that an origin answered, by status class.";
    ORIGIN_BYTES: Counter "foreland_origin_response_bytes_total" in "bytes" by ["origin"]
        "Bytes of response bodies received from an origin.";
    ORIGIN_CONNECT: Histogram "foreland_origin_connect_seconds" in "seconds" by ["origin"]
        "Time to open a new connection to an origin's server, TLS included.";
    ORIGIN_FIRST_BYTE: Histogram "foreland_origin_first_byte_seconds" in "seconds" by ["origin"]
        "Time from sending a request to an origin to the header section of its answer.";
    ORIGIN_CONNECTIONS: Counter "foreland_origin_connections_total" in "connections" by ["origin", "kind"]
        "Connections taken for requests to an origin: opened for the purpose, or reused.";
    ORIGIN_RETRIES: Counter "foreland_origin_retries_total" in "requests" by ["origin"]
        "Further tries of a request after one that failed.";
    ORIGIN_RETRIES_REFUSED: Counter "foreland_origin_retries_refused_total" in "requests" by ["origin"]
        "Further tries that were not made because the retry budget was spent (origins.NAME.retry.budget).";
    ORIGIN_HEDGES: Counter "foreland_origin_hedges_total" in "requests" by ["origin"]
        "Requests that were sent to a second server since the first took its time (origins.NAME.hedge).";
    ORIGIN_FAILURES: Counter "foreland_origin_failures_total" in "requests" by ["origin", "kind"]
        "Tries that failed, by kind: connect, connect_timeout, tls, timeout, reset, protocol, status, unavailable, overloaded, other.";
    ORIGIN_SERVER_UP: Gauge "foreland_origin_server_up" in "boolean" by ["origin", "server"]
        "1 where a server takes requests as far as its health is known, else 0.";
    ORIGIN_SERVER_DRAINED: Gauge "foreland_origin_server_drained" in "boolean" by ["origin", "server"]
        "1 where the operator drained a server, else 0.";
    ORIGIN_SERVER_IN_FLIGHT: Gauge "foreland_origin_server_requests_in_flight" in "requests" by ["origin", "server"]
        "Requests that a server is working on.";
    ORIGIN_SERVER_REQUESTS: Counter "foreland_origin_server_requests_total" in "requests" by ["origin", "server", "status"]
        "Tries that a server answered, by status class.";
    ORIGIN_SERVER_FAILURES: Counter "foreland_origin_server_failures_total" in "requests" by ["origin", "server", "kind"]
        "Tries on a server that brought no answer, or one that broke off, by kind: connect, connect_timeout, tls, timeout, reset, protocol, other.";
    ORIGIN_SERVER_FIRST_BYTE: Histogram "foreland_origin_server_first_byte_seconds" in "seconds" by ["origin", "server"]
        "Time from the choice of a server to the header section of its answer.";
    ORIGIN_SERVER_EJECTED: Gauge "foreland_origin_server_ejected" in "boolean" by ["origin", "server"]
        "1 where outlier detection keeps requests from a server for a while, else 0.";
    ORIGIN_SERVER_EJECTIONS: Counter "foreland_origin_server_ejections_total" in "ejections" by ["origin", "server"]
        "How often a server has been ejected.";
    ORIGIN_SERVER_WEIGHT: Gauge "foreland_origin_server_weight" in "shares" by ["origin", "server"]
        "A server's share of requests beside the others' of its tier, as configured or found; 0 takes none.";
    ORIGIN_SERVER_CONNECTIONS: Gauge "foreland_origin_server_connections" in "connections" by ["origin", "server", "state"]
        "Connections to a server: open, in use or not; and of those the idle ones, which no request uses.";
    ORIGIN_RETRY_BUDGET: Gauge "foreland_origin_retry_budget" in "retries" by ["origin"]
        "Retries that may be begun now (origins.NAME.retry.budget).";
    ORIGIN_PANICKING: Gauge "foreland_origin_panicking" in "boolean" by ["origin"]
        "1 where so few servers can be used that all are (origins.NAME.panic_below), else 0.";
    ORIGIN_PENDING: Gauge "foreland_origin_pending" in "requests" by ["origin"]
        "Requests that wait because each server has as many as it may (origins.NAME.limits.requests).";

    TLS_HANDSHAKES: Counter "foreland_tls_handshakes_total" in "handshakes" by ["version", "kind"]
        "TLS handshakes with clients, by version and by whether they were full or resumed a session.";
    TLS_FAILURES: Counter "foreland_tls_handshake_failures_total" in "handshakes" by ["reason"]
        "TLS handshakes with clients that failed: closed, timeout, unknown_name, client_certificate or protocol.";
    CERTIFICATE_EXPIRY: Gauge "foreland_certificate_expiry_timestamp_seconds" in "seconds" by ["file", "name"]
        "When a listener's certificate ends, as a Unix time.";
    FILES_WATCHED: Gauge "foreland_watched_files" in "sets of files" by ["state"]
        "Certificates, lists and databases that are read again when they change: ok, or failing where the newest content could not be put in force.";
    FILES_CHANGES: Counter "foreland_watched_file_changes_total" in "changes" by ["result"]
        "Changes of watched files: ok, or failed where what was before stays in force.";
    CONNECTIONS_OPEN: Gauge "foreland_client_connections_open" in "connections" by []
        "Client connections that are open now.";
    CONNECTIONS_LIMIT: Gauge "foreland_client_connections_limit" in "connections" by []
        "Client connections that may be open at once (limits.connections).";
    CONNECTIONS_ACCEPTED: Counter "foreland_client_connections_accepted_total" in "connections" by []
        "Client connections accepted.";
    CONNECTIONS_REFUSED: Counter "foreland_client_connections_refused_total" in "connections" by ["reason"]
        "Client connections closed at once, by why: total (limits.connections), address (limits.connections_per_address) or \
         proxy (not one of proxy_protocol, or without its header).";

    CONNECTIONS_ENDED: Counter "foreland_client_connections_timed_out_total" in "connections" by []
        "Client connections ended because the client was too slow to ask, to finish asking, or to take the answer.";
    CONNECTIONS_CALMED: Counter "foreland_client_connections_calmed_total" in "connections" by ["reason"]
        "HTTP/2 connections ended with ENHANCE_YOUR_CALM, by what the client did too much: resets, control-frames, given-up \
         (most requests come to nothing), malformed (requests), framing (header sections or DATA without measure).";
    SHED: Counter "foreland_shed_total" in "requests" by ["reason"]
        "Requests refused with a 503, or served what is stale, because of overload: requests (in flight), delay (of the event \
         loop) or memory.";
    LOOP_DELAY: Gauge "foreland_loop_delay_seconds" in "seconds" by []
        "How late the event loop is, over the last moments.";

    LOG_WRITTEN: Counter "foreland_access_log_records_written_total" in "records" by []
        "Access-log records that reached their file.";
    LOG_DROPPED: Counter "foreland_access_log_records_dropped_total" in "records" by []
        "Access-log records given up because the file did not keep up or could not be written.";
    LOG_ERRORS: Counter "foreland_access_log_errors_total" in "errors" by []
        "Failed attempts to write or open the access log.";

    RELOADS: Counter "foreland_config_reloads_total" in "reloads" by ["result"]
        "Reloads of the configuration: ok, or failed and without effect.";
    CONFIG_LOADED: Gauge "foreland_config_loaded_timestamp_seconds" in "seconds" by []
        "When the configuration in force was loaded, in seconds since 1970.";
    CONFIG_INFO: Gauge "foreland_config_info" in "info" by ["hash"]
        "Always 1; the label is the hash of the configuration in force.";
    BUILD_INFO: Gauge "foreland_build_info" in "info" by ["version", "commit"]
        "Always 1; the labels tell what is running.";
}

/// The figures of the process itself, as every Prometheus client library names them.
///
/// Made by the `prometheus` crate; declared here so that the documentation is complete.
pub static PROCESS: &[Def] = &[
    process(Kind::Counter, "process_cpu_seconds_total", "seconds", "Total user and system CPU time spent in seconds."),
    process(Kind::Gauge, "process_open_fds", "descriptors", "Number of open file descriptors."),
    process(Kind::Gauge, "process_max_fds", "descriptors", "Maximum number of open file descriptors."),
    process(Kind::Gauge, "process_virtual_memory_bytes", "bytes", "Virtual memory size in bytes."),
    process(Kind::Gauge, "process_resident_memory_bytes", "bytes", "Resident memory size in bytes."),
    process(
        Kind::Gauge,
        "process_start_time_seconds",
        "seconds",
        "Start time of the process since unix epoch in seconds.",
    ),
    process(Kind::Gauge, "process_threads", "threads", "Number of OS threads in the process."),
];

const fn process(kind: Kind, name: &'static str, unit: &'static str, help: &'static str) -> Def {
    Def { name, kind, unit, labels: &[], help }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut seen = HashSet::new();
        for def in ALL {
            assert!(seen.insert(def.name), "{} twice", def.name);
            assert!(def.name.starts_with("foreland_"), "{}", def.name);
            assert_eq!(def.name.ends_with("_total"), def.kind == Kind::Counter, "{}", def.name);
            assert!(def.help.ends_with('.') && !def.help.contains('\n'), "{}", def.name);
            let stem = def.name.trim_end_matches("_total");
            for unit in ["seconds", "bytes"] {
                assert_eq!(stem.ends_with(unit), def.unit == unit, "{} is in {}", def.name, def.unit);
            }
        }
    }
}
