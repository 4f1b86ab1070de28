{% macro jammi_follow(relation) %}
SELECT * FROM jammi_follow('{{ relation }}', triggers := false)
{% endmacro %}
