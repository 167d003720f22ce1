"""Functions that a statement may call though sqlglot has no class of their own for them, by dialect.

A list of what is allowed: a list of what is forbidden would miss the next server's news, extensions, and functions
that somebody wrote. What touches files, the network, settings, locks, sequences or other sessions is not in it, nor
what takes SQL as text.
"""

from tutelage.text2sql.database.schema import Dialect

_POSTGRESQL = """
age array_dims array_fill array_length array_lower array_ndims array_positions array_replace array_to_json array_upper
ascii bit_and bit_or bit_xor bool_and bool_or btrim cardinality clock_timestamp convert_from cosd cotd cume_dist date
date_part daterange div erf every factorial fuzzystrmatch gcd generate_subscripts get_byte int4range int8range isempty
isfinite json_agg json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
json_each json_each_text json_extract_path json_extract_path_text json_object json_object_agg json_object_keys
json_populate_record json_strip_nulls json_to_record json_to_recordset json_typeof jsonb_agg jsonb_array_elements
jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
jsonb_extract_path jsonb_extract_path_text jsonb_object jsonb_object_agg jsonb_object_keys jsonb_path_exists
jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set
jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof lcm lower_inc lower_inf ltrim make_date make_time
make_timestamp make_timestamptz min_scale mod now num_nonnulls num_nulls numrange octet_length phraseto_tsquery
plainto_tsquery position quote_literal range_agg range_merge regexp_match regexp_matches regexp_split_to_array
regexp_split_to_table row row_to_json rtrim scale set_byte similarity sind statement_timestamp string_agg
string_to_table strpos substr tand timeofday timezone to_date to_hex to_json to_jsonb to_timestamp to_tsquery
to_tsvector transaction_timestamp trim_array trim_scale ts_headline ts_rank ts_rank_cd tsrange tstzrange unaccent
unistr upper_inc upper_inf websearch_to_tsquery width_bucket word_similarity
"""
_MYSQL = """
addtime any_value bin bit_and bit_length bit_or bit_xor char_length character_length charset coercibility conv
convert_tz crc32 curdate curtime date_format dayname dayofmonth dayofweek dayofyear export_set field find_in_set
format from_days from_unixtime get_format group_concat inet_aton inet_ntoa insert instr interval is_uuid isnull
json_arrayagg json_contains json_contains_path json_depth json_exists json_extract json_length json_merge_patch
json_merge_preserve json_object json_objectagg json_overlaps json_pretty json_query json_quote json_search
json_unquote json_valid json_value last_day locate log10 log2 lpad ltrim make_set makedate maketime microsecond mid
mod monthname now oct octet_length ord period_add period_diff position quarter quote regexp_instr regexp_substr rpad
rtrim sec_to_time std stddev str_to_date strcmp subdate substr substring_index subtime sysdate time_format time_to_sec
timediff timestampadd to_days to_seconds truncate unix_timestamp utc_date utc_time utc_timestamp values weekday
weekofyear yearweek
"""
_DUCKDB = """
abs age array_aggregate array_apply array_extract array_length array_slice array_transform array_unique bar bin
bit_and bit_count bit_or bit_xor bool_and bool_or century char_length chr concat_ws contains cosine_similarity
current_date date_add date_diff date_part date_sub datediff datepart datesub datetrunc dayname dayofmonth dayofweek
dayofyear decade editdist3 element_at ends_with entropy epoch epoch_ms epoch_ns epoch_us equi_width_bins era even favg
first format format_bytes fsum gamma gcd geomean geometric_mean get_current_time get_current_timestamp
greatest_common_divisor hamming hash histogram instr isfinite isodow isoyear jaccard jaro_similarity
jaro_winkler_similarity json json_array json_array_length json_contains json_each json_exists json_extract_path
json_extract_path_text json_extract_string json_keys json_merge_patch json_object json_quote json_structure
json_transform json_tree json_type json_valid json_value kahan_sum kurtosis kurtosis_pop last last_day lcase lcm
least_common_multiple len lgamma list_aggregate list_any_value list_append list_avg list_concat list_contains
list_count list_distinct list_extract list_filter list_first list_has_all list_has_any list_last list_max list_mean
list_median list_min list_position list_product list_reduce list_reverse list_reverse_sort list_slice list_sort
list_string_agg list_sum list_transform list_unique list_value list_zip lpad ltrim mad make_date make_time
make_timestamp make_timestamptz map_contains map_entries map_extract map_values mean microsecond millennium
millisecond mismatches mod mode monthname nextafter nfc_normalize now ord parse_filename prefix printf product
quantile_cont quantile_disc range regexp_matches regexp_split_to_array reservoir_quantile right_grapheme round_even
row row_to_json rpad rtrim sem signbit skewness split_part str_split str_split_regex strftime string_agg string_split
string_split_regex string_to_array strip_accents strlen strpos strptime struct_insert struct_pack substr
substring_grapheme suffix sum_no_overflow sumkahan time_bucket timezone timezone_hour timezone_minute to_base
to_centuries to_days to_decades to_hours to_json to_microseconds to_millennia to_milliseconds to_minutes to_months
to_seconds to_timestamp to_weeks to_years today transaction_timestamp trunc try_strptime typeof union_extract
union_tag union_value unpivot_list url_decode url_encode week_of_year weekday weekofyear xor yearweek
"""
ALLOWED: dict[Dialect, frozenset[str]] = {
    "postgresql": frozenset(_POSTGRESQL.split()),
    "mysql": frozenset(_MYSQL.split()),
    "duckdb": frozenset(_DUCKDB.split()),
}
