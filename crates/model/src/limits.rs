//! Every limit that Lambda documents and we enforce, once.
//!
//! Source: "Lambda quotas", <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>,
//! and the public API model where it is stricter.

use std::time::Duration;

use crate::ByteSize;

/// Largest synchronous request payload.
pub const SYNC_REQUEST: ByteSize = ByteSize::mebibytes(6);
/// Largest synchronous response: 6 MB and 100 bytes of envelope.
pub const SYNC_RESPONSE: ByteSize = ByteSize::bytes(6 * 1024 * 1024 + 100);
/// Largest streamed response.
pub const STREAMED_RESPONSE: ByteSize = ByteSize::mebibytes(200);
/// Largest asynchronous request payload.
pub const ASYNC_REQUEST: ByteSize = ByteSize::mebibytes(1);
/// Largest zip archive in a request.
pub const ZIP_DIRECT: ByteSize = ByteSize::mebibytes(50);
/// Largest body of a request that carries a zip archive in base64, as the real service words it.
pub const ZIP_REQUEST: ByteSize = ByteSize::bytes(70_167_211);
/// Largest body of any other control-plane request.
pub const CONTROL_REQUEST: ByteSize = ByteSize::mebibytes(6);
/// Largest sum of unpacked code and layers.
pub const UNZIPPED: ByteSize = ByteSize::mebibytes(250);
/// Most entries of a zip archive; ours, to bound the work of unpacking.
pub const ZIP_ENTRIES: u64 = 100_000;
/// Largest environment, in bytes of its JSON form.
pub const ENVIRONMENT: ByteSize = ByteSize::bytes(4 * 1024);
/// Function timeout in seconds: least, default, most.
pub const TIMEOUT_SECONDS: (u32, u32, u32) = (1, 3, 900);
/// Memory in MB: least, default, most.
pub const MEMORY_MB: (u32, u32, u32) = (128, 128, 10_240);
/// `/tmp` in MB: least, default, most.
pub const EPHEMERAL_MB: (u32, u32, u32) = (512, 512, 10_240);
/// Tags of one function.
pub const TAGS: usize = 50;
/// Length of a function name.
pub const FUNCTION_NAME: usize = 64;
/// Length of a handler.
pub const HANDLER: usize = 128;
/// Length of an alias's name.
pub const ALIAS_NAME: usize = 128;
/// Length of a description.
pub const DESCRIPTION: usize = 256;
/// Length of a log group's name.
pub const LOG_GROUP: usize = 512;
/// Concurrent invocations of an account.
pub const ACCOUNT_CONCURRENCY: u32 = 1_000;
/// Those that functions must leave to others when they reserve some.
pub const UNRESERVED_CONCURRENCY: u32 = 100;
/// Stored code of an account.
pub const CODE_STORAGE: ByteSize = ByteSize::bytes(75 * 1024 * 1024 * 1024);
/// Time an on-demand Instance has for its init phase before it is retried inside the invocation.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same of an Instance that is kept ready.
pub const PROVISIONED_INIT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Invocations that one Instance may be asked to serve at a time: least and most. Lambda allows 1,600 on
/// its largest machines; each is a connection and a body that one sandbox can make us hold.
pub const CONCURRENCY_PER_INSTANCE: (u32, u32) = (1, 64);
/// Processes and threads of one Instance.
pub const PROCESSES: u32 = 1_024;
/// Processes of one Instance's user, its `RLIMIT_NPROC`; not documented, `ulimit -u` of a function on
/// Lambda says so.
pub const USER_PROCESSES: u64 = 742;
/// Open files of one process in an Instance.
pub const OPEN_FILES: u64 = 1_024;
/// Bytes of log that `LogType=Tail` answers.
pub const LOG_TAIL: usize = 4 * 1024;
/// Length of the base64 client context of a synchronous invocation.
pub const CLIENT_CONTEXT: usize = 3_583;
/// Validity of the link in `GetFunction`'s `Code.Location`.
pub const CODE_LINK: Duration = Duration::from_secs(600);
/// Memory that buys one whole vCPU, in MB.
pub const MEMORY_MB_PER_VCPU: u32 = 1_769;
