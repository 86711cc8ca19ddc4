//! Kafka's topic id (KIP-516), which changes when a topic is deleted and made anew under its name. rdkafka has no safe
//! call for it.
#![expect(unsafe_code, reason = "DescribeTopics exists in librdkafka but not in rdkafka's safe interface")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Calls a destructor of librdkafka when it goes out of scope.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// Takes a pointer that librdkafka has given to the caller, or fails on null.
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, ClientError> {
        if pointer.is_null() { Err(ClientError::AdminOp(Code::Fail)) } else { Ok(Self(pointer, destroy)) }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from the constructor that belongs to this destructor, and is dropped once.
        unsafe { (self.1)(self.0) }
    }
}

/// The ids of topics in base64, as Kafka's own tools print them, by name.
///
/// # Errors
/// The code of the first topic that the broker does not describe; no answer within `timeout`.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, String>, ClientError> {
    let names = topics.iter().map(|topic| CString::new(*topic)).collect::<Result<Vec<_>, _>>()?;
    // `names` owns the strings until the collection has copied them.
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let mut ids = BTreeMap::new();
    // SAFETY: every pointer below is checked for null and outlives its use: the names the call that copies them, the
    // client the queue and the event, the event all that is read from it. librdkafka's functions may be called from any
    // thread.
    unsafe {
        let native = client.native_ptr();
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy)?;
        let queue = Owned::new(sys::rd_kafka_queue_new(native), sys::rd_kafka_queue_destroy)?;
        let options =
            sys::rd_kafka_AdminOptions_new(native, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy)?;
        // By default the request would continue for a minute after the caller has given up.
        check(sys::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, ptr::null_mut(), 0))?;
        sys::rd_kafka_DescribeTopics(native, topics.0, options.0, queue.0);
        // Null where the time is over.
        let event = Owned::new(sys::rd_kafka_queue_poll(queue.0, timeout_ms), sys::rd_kafka_event_destroy)
            .map_err(|_| ClientError::AdminOp(Code::OperationTimedOut))?;
        // The error of the whole request; each topic has one of its own below.
        check(sys::rd_kafka_event_error(event.0))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(ClientError::AdminOp(Code::Fail));
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for index in 0..if described.is_null() { 0 } else { count } {
            let topic = *described.add(index);
            let error = sys::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() {
                // For example a topic that was deleted, or that the user may not describe.
                check(sys::rd_kafka_error_code(error))?;
            }
            let name = text(sys::rd_kafka_TopicDescription_name(topic))?;
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            // The text belongs to the id, and the id to the event: `text` copies it before the event is destroyed.
            let id = if id.is_null() { ptr::null() } else { sys::rd_kafka_Uuid_base64str(id) };
            ids.insert(name, text(id)?);
        }
    }
    Ok(ids)
}

/// Copies a text of librdkafka, or fails on null.
///
/// # Safety
/// `pointer` is null or a C string that lives during the call.
unsafe fn text(pointer: *const c_char) -> Result<String, ClientError> {
    if pointer.is_null() {
        return Err(ClientError::AdminOp(Code::Fail));
    }
    // SAFETY: the caller gives a C string.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), ClientError> {
    match Code::from(code) {
        Code::NoError => Ok(()),
        code => Err(ClientError::AdminOp(code)),
    }
}
