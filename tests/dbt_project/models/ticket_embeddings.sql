SELECT *
FROM jammi_generate('{{ ref('tickets') }}', 'body', 'id')
