variable "name" {
  description = "Name of the estate; the key's alias is `alias/NAME`, and its log groups begin with `/NAME/`."
  type        = string
}
