variable "name" {
  description = "Name of the estate; the queues are `NAME-incoming` and `NAME-incoming-dead`."
  type        = string
}

variable "bucket" {
  description = "Bucket whose new objects are announced."
  type        = string
}

variable "bucket_arn" {
  description = "ARN of that bucket."
  type        = string
}

variable "incoming_prefix" {
  description = "Key prefix of the objects that are announced, without slashes at its ends."
  type        = string
}

variable "key_arn" {
  description = "KMS key that encrypts the messages; its policy must let S3 use it."
  type        = string
}
