use super::*;

/// As in the Amazon S3 User Guide, "Event message structure".
const AWS: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
    "eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put",
    "userIdentity":{"principalId":"AIDAJDPLRKLG7UEXAMPLE"},"requestParameters":{"sourceIPAddress":"127.0.0.1"},
    "responseElements":{"x-amz-request-id":"C3D13FE58DE4C810"},
    "s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule",
      "bucket":{"name":"amzn-s3-demo-bucket","ownerIdentity":{"principalId":"A3NL1KOZZKExample"},
        "arn":"arn:aws:s3:::amzn-s3-demo-bucket"},
      "object":{"key":"incoming/red+flower%2B%C3%A4.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
        "versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko","sequencer":"0055AED6DCD90281E5"}}}]}"#;

/// As moto 5.2.5 sends it.
const MOTO: &str = r#"{"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
    "eventTime": "2026-01-01T00:00:00.000Z", "eventName": "ObjectCreated:CompleteMultipartUpload",
    "s3": {"s3SchemaVersion": "1.0", "configurationId": "x", "bucket": {"name": "lake", "arn": "arn:aws:s3:::lake"},
    "object": {"key": "incoming%2Fa+b", "size": 5, "eTag": "abc-2"}}}]}"#;

const EVENT_BRIDGE: &str = r#"{"version":"0","id":"17793124-05d4-b198-2fde-7ededc63b103","detail-type":"Object Created",
    "source":"aws.s3","account":"111122223333","time":"2021-11-12T00:00:00Z","region":"ca-central-1",
    "resources":["arn:aws:s3:::amzn-s3-demo-bucket1"],"detail":{"version":"0","bucket":{"name":"amzn-s3-demo-bucket1"},
    "object":{"key":"example key+%20","size":5,"etag":"b1946ac92492d2347c6235b4d2611184",
    "version-id":"IYV3p45BT0ac8hjHg1houSdS1a.Mro8e","sequencer":"617f08299329d189"},"request-id":"N4N7GDK58NMKJ12R",
    "requester":"123456789012","source-ip-address":"1.2.3.4","reason":"PutObject"}}"#;

/// A message of a bucket by which no object is announced.
fn of_bucket(name: &str) -> Notice {
    Notice { buckets: BTreeSet::from([name.to_owned()]), created: Vec::new() }
}

fn created(body: &str) -> Vec<ObjectCreated> {
    Notice::read(body).unwrap().created
}

#[test]
fn a_notification_of_s3_names_bucket_key_version_and_entity_tag() {
    let object = ObjectCreated {
        bucket: "amzn-s3-demo-bucket".to_owned(),
        key: "incoming/red flower+ä.jpg".to_owned(),
        etag: "d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        version: Some("096fKKXTRTtl3on89fVO.nfljtsv6qko".to_owned()),
        size_bytes: 1024,
        sequencer: Some("0055AED6DCD90281E5".to_owned()),
    };
    assert_eq!(created(AWS), [object]);
    let moto = &created(MOTO)[0];
    assert_eq!((moto.key.as_str(), moto.etag.as_str(), moto.version.as_deref()), ("incoming/a b", "abc-2", None));
}

#[test]
fn a_space_in_a_key_is_a_plus_sign_or_encoded() {
    for (encoded, key) in [("a+b", "a b"), ("a%20b", "a b"), ("a%2Bb", "a+b"), ("a%2520b", "a%20b"), ("a%b", "a%b")] {
        assert_eq!(created(&MOTO.replace("incoming%2Fa+b", encoded))[0].key, key);
    }
    let bad = Notice::read(&MOTO.replace("incoming%2Fa+b", "%ff")).unwrap_err();
    assert!(matches!(bad, NoticeError::Key { .. }), "{bad}");
}

#[test]
fn an_event_of_event_bridge_has_its_key_as_it_is() {
    let object = &created(EVENT_BRIDGE)[0];
    assert_eq!((object.key.as_str(), object.size_bytes), ("example key+%20", 5));
    assert_eq!(object.version.as_deref(), Some("IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"));
    let deleted = EVENT_BRIDGE.replace("Object Created", "Object Deleted");
    assert_eq!(Notice::read(&deleted).unwrap(), of_bucket("amzn-s3-demo-bucket1"));
}

#[test]
fn a_notification_of_sns_has_either_of_them_inside() {
    for inner in [AWS, EVENT_BRIDGE] {
        let outer = serde_json::json!({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:…",
            "Subject": "Amazon S3 Notification", "Message": inner, "Timestamp": "2026-01-01T00:00:00.000Z"});
        assert_eq!(created(&outer.to_string()), created(inner));
        let twice = serde_json::json!({"Type": "Notification", "Message": outer.to_string()});
        assert!(matches!(Notice::read(&twice.to_string()), Err(NoticeError::Foreign)));
    }
}

#[test]
fn test_events_are_recognised_and_other_events_are_not_objects() {
    let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z","Bucket":"bucketname",
        "RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE"}"#;
    assert_eq!(Notice::read(test).unwrap(), of_bucket("bucketname"));
    let removed = AWS.replace("ObjectCreated:Put", "ObjectRemoved:Delete");
    assert_eq!(Notice::read(&removed).unwrap(), of_bucket("amzn-s3-demo-bucket"));
    for nameless in [r#"{"Event":"s3:TestEvent"}"#, r#"{"Records":[]}"#] {
        assert!(matches!(Notice::read(nameless), Err(NoticeError::NoBucket)), "{nameless}");
    }
    let minio = AWS.replace("ObjectCreated:Put", "s3:ObjectCreated:Put").replace("aws:s3\"", "minio:s3\"");
    assert_eq!(created(&minio), created(AWS));
}

#[test]
fn one_message_may_announce_several_objects() {
    let record = &AWS[r#"{"Records":["#.len()..AWS.len() - "]}".len()];
    let both = format!(r#"{{"Records":[{record},{}]}}"#, record.replace("red+flower", "blue"));
    let keys: Vec<String> = created(&both).into_iter().map(|object| object.key).collect();
    assert_eq!(keys, ["incoming/red flower+ä.jpg", "incoming/blue+ä.jpg"]);
}

#[test]
fn what_is_no_event_of_s3_is_an_error() {
    for body in ["", "hello", "[]", "7"] {
        assert!(matches!(Notice::read(body), Err(NoticeError::Json(_))), "{body}");
    }
    let foreign = [
        "{}",
        r#"{"order": 7}"#,
        r#"{"Records":[{"eventSource":"aws:dynamodb","eventName":"INSERT"}]}"#,
        r#"{"source":"aws.ec2","detail-type":"EC2 Instance State-change Notification","detail":{}}"#,
        r#"{"Type":"SubscriptionConfirmation","Message":"You have chosen to subscribe"}"#,
    ];
    for body in foreign {
        assert!(matches!(Notice::read(body), Err(NoticeError::Foreign)), "{body}");
    }
    let lacking = AWS.replace("\"key\"", "\"kee\"");
    assert!(matches!(Notice::read(&lacking), Err(NoticeError::Field(_))));
}
